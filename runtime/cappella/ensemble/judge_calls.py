"""The calls of one judgement: a few at a time, each recorded, and one more where a reply is unusable."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from cappella.config.options import Settings
from cappella.engines import thinking
from cappella.engines.base import Engine
from cappella.ensemble.asking import second_try
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.judgement import PartlyRead, Want
from cappella.ensemble.run import Call, Role, Shortened
from cappella.ensemble.shares import Reply, fit
from cappella.ensemble.together import AT_ONCE
from cappella.ensemble.token_limits import short_sampling
from cappella.errors import EngineContextExceeded, EngineOnlyThought, EngineUnusable
from cappella.types import Message, OutputFormat, Prompt, Sampling

OTHER_TEMPERATURE = 0.7
"""Of the second try: at the judge's own, which is 0 in most configs, it would say the same again."""

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Question:
    """What the judge is asked after it has read: the form of its reply, and how many tokens that may have."""

    role: Role
    output_format: OutputFormat
    max_tokens: int
    logprobs: int | None = None


@dataclass(slots=True)
class JudgeCalls:
    """Calls of the judge `engine` over the conversation in `prompt`, whose texts are broken up already."""

    engine: Engine
    prompt: Prompt
    settings: Settings
    shortened: list[PartlyRead] = field(default_factory=list)
    turn: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))
    _made: list[EngineCall] = field(default_factory=list)

    @property
    def records(self) -> list[Call]:
        """Every call that was made, also those that failed."""
        return [call.record for call in self._made if call.was_called]

    async def read(self, part: Want, candidates: Candidates, reply_tokens: int, instruction: str | None) -> Candidates:
        """The candidates as they fit into the judge's context; what is shortened is noted.

        Raises EngineContextExceeded if the conversation alone leaves no room.
        """
        reply = Reply(None if self.engine.capabilities.reasoning else reply_tokens)
        # Counting takes calls of the engine, too.
        async with self.turn:
            fitting = await fit(
                candidates, self.prompt, self.engine, reply, instruction, own_texts=self.settings.judge_texts
            )
        if not fitting.has_room:
            raise EngineContextExceeded(f"the question leaves {self.settings.judge} no room to read an answer", 400)
        self.note(part, list(fitting.candidates.parts.values()))
        return fitting.candidates

    def note(self, part: Want, shortened: Sequence[Shortened]) -> None:
        """The judge read only parts of these answers."""
        self.shortened += [PartlyRead(part, each) for each in shortened]

    async def ask(
        self, question: Question, messages: Sequence[Message], nonce: str, read: Callable[[EngineCall], Result]
    ) -> Result:
        """What `read` makes of the reply, which is asked for once more if it is unusable. Raises EngineError."""
        prompt = replace(
            Prompt(messages, output_format=question.output_format, watched=False),
            logprobs=question.logprobs,
            reasoning_effort=self.prompt.reasoning_effort,
        )
        sampling = self._sampling(question)
        async with self.turn:
            try:
                return read(await self._complete(question.role, prompt, sampling, nonce))
            except EngineUnusable as error:
                with second_try(error):
                    again = self._otherwise(error, prompt, sampling)
                    return read(await self._complete(question.role, *again, nonce))

    async def _complete(self, role: Role, prompt: Prompt, sampling: Sampling, nonce: str) -> EngineCall:
        call = EngineCall(role, self.settings.judge, nonce=nonce)
        self._made.append(call)
        await call.complete(self.engine, prompt, sampling)
        return call

    def _otherwise(self, error: EngineUnusable, prompt: Prompt, sampling: Sampling) -> tuple[Prompt, Sampling]:
        """The same question without thinking for a judge that only thought, else at another temperature."""
        if isinstance(error, EngineOnlyThought) and self.engine.capabilities.reasoning:
            return thinking.turned_off(prompt, sampling, self.engine.capabilities)
        return prompt, sampling.model_copy(update={"temperature": OTHER_TEMPERATURE})

    def _sampling(self, question: Question) -> Sampling:
        """The judge's own, as long as the reply may be; thinking before it has a limit of its own, or the operator's for all."""
        own = self.settings.judge_sampling
        sampling = short_sampling(own, self.engine.capabilities, question.max_tokens)
        if not self.engine.capabilities.reasoning:
            return sampling
        budget = sampling.thinking_token_budget
        limit = own.max_completion_tokens if budget is None else question.max_tokens + budget
        return sampling.model_copy(update={"max_completion_tokens": limit})
