"""Fills the judge's prefix cache while the panel is still answering, so that little is left to prefill afterwards."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager

from cappella.background import background
from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.engines.context_size import BYTES_PER_TOKEN, prompt_work
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.candidates import Ordering
from cappella.ensemble.events import AnswerDelta, AnswerDone, AnswerFailed, Event, RoundStarted, ToolCalled
from cappella.ensemble.reading import early_tokens
from cappella.ensemble.run import Answer, Call
from cappella.errors import EngineError
from cappella.threads import off_loop_if_large
from cappella.types import Message, Prompt, Sampling

STEP_TOKENS = 128
"""The fewest new tokens worth a call: the largest block of vLLM's prefix cache (on a CPU; on a GPU it has 16)."""

CHARACTERS_PER_TOKEN = 4
"""A first guess, until a call has told."""

BUSY_CALLS = 4
"""The judge's engine is left alone from so many calls on: early prefill would only delay them."""


class EarlyPrefill:
    """Sends the judge the known beginning of its prompt: the conversation, finished answers, the last one as it grows.

    Starts when the first member has finished: until then the panel needs the shared GPU, or the CPU cores, itself.
    Makes one call at a time, for one token of output, once at least STEP_TOKENS are new. After a call that fails it
    stops, and the judge prefills its whole prompt at once.
    """

    def __init__(self, engine: Engine, prompt: Prompt, ordering: Ordering, settings: Settings) -> None:
        self._engine_calls: list[EngineCall] = []
        self._engine = engine
        self._prompt = prompt
        self._ordering = ordering
        self._settings = settings
        self._work = prompt_work(prompt)
        self._is_last_round = False
        self._answers: dict[str, Answer] = {}
        self._failed: set[str] = set()
        self._partial_texts: dict[str, list[str]] = {}
        self._changed = asyncio.Event()
        self._sent = ""
        self._share = early_tokens(settings, engine.capabilities, prompt)
        self._known: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._new_characters = 0
        self._characters_per_token = float(CHARACTERS_PER_TOKEN)

    @property
    def read(self) -> Mapping[str, int]:
        """The characters at the beginning of each answer that it has sent."""
        return self._read

    @property
    def calls(self) -> Sequence[Call]:
        return [call.record for call in self._engine_calls if call.was_called]

    def on_event(self, event: Event) -> None:
        """Note the panel's progress; returns at once."""
        match event:
            case AnswerDelta():
                self._partial_texts.setdefault(event.name, []).append(event.text)
                self._new_characters += len(event.text)
                # There is a delta per token: wake the task only once a call may be worth it.
                if self._new_characters < STEP_TOKENS * self._characters_per_token:
                    return
                self._new_characters = 0
            case ToolCalled():
                self._partial_texts.pop(event.name, None)
                return
            case AnswerDone():
                self._answers[event.answer.name] = event.answer
            case AnswerFailed():
                self._failed.add(event.failure.name)
            case RoundStarted():
                for known in (self._answers, self._failed, self._partial_texts, self._read):
                    known.clear()
            case _:
                return
        self._changed.set()

    @asynccontextmanager
    async def running(self, is_last: bool) -> AsyncIterator[None]:
        """Prefill during one round of the panel; a call still running at its end is cancelled.

        Answers are sent only in the last round, since the judge sees no others.
        """
        self._is_last_round = is_last
        async with background(self._run()) as task:
            yield
        if not task.cancelled() and not isinstance(error := task.exception(), EngineError | None):
            raise error

    async def _run(self) -> None:
        while True:
            # Before the look at it: what comes meanwhile is looked at next.
            self._changed.clear()
            messages = self._messages()
            text = await off_loop_if_large(self._work, _text, messages)
            if self._is_worth_a_call(text):
                self._sent, self._read = text, self._known
                await self._send(messages, len(text))
            else:
                await self._changed.wait()

    def _is_worth_a_call(self, text: str) -> bool:
        unfinished = len(self._settings.answer_names) - len(self._failed) - len(self._answers)
        if unfinished == 0 or (unfinished > 1 and not self._answers):
            return False
        if self._engine.status.state != "ready" or self._engine.in_flight >= BUSY_CALLS:
            return False
        cached = len(self._sent) if text.startswith(self._sent) else 0
        return len(text) - cached >= STEP_TOKENS * self._characters_per_token

    async def _send(self, messages: Sequence[Message], characters: int) -> None:
        call = EngineCall("prefill", self._settings.judge)
        self._engine_calls.append(call)
        prompt = Prompt(
            messages,
            self._prompt.tools,
            "none" if self._prompt.tools else None,
            reasoning_effort=self._prompt.reasoning_effort,
            template_words=self._prompt.template_words,
        )
        async with aclosing(call.stream(self._engine, prompt, Sampling(max_completion_tokens=1))) as chunks:
            async for _ in chunks:
                pass
        if tokens := call.record.usage.prompt_tokens:
            self._characters_per_token = characters / tokens

    def _messages(self) -> list[Message]:
        """The judge's messages up to the first answer that is not known yet, or that it may read in part only."""
        names = [name for name in self._settings.answer_names if name not in self._failed]
        finished: list[Answer] = []
        growing: str | None = None
        for name in self._ordering.ordered(names) if self._is_last_round else ():
            if name in self._answers:
                (text,) = self._ordering.candidates([self._answers[name]]).texts
                if self._fits(text):
                    finished.append(self._answers[name])
                    continue
                growing = self._beginning(text)
            elif len(names) - len(self._answers) == 1 and not self._settings.show_reasoning:
                growing = self._beginning(prompts.broken_up("".join(self._partial_texts.get(name, ()))))
            break
        texts = self._ordering.candidates(finished).texts
        self._known = {answer.name: len(text) for answer, text in zip(finished, texts, strict=True)}
        if growing is not None:
            self._known[name] = len(growing)
        own_texts = self._settings.judge_texts
        return prompts.opening_messages(self._prompt.messages, texts, self._ordering.nonce, growing, own_texts)

    def _fits(self, text: str) -> bool:
        """Whether it is within the share that each answer has for certain, so that it stays whole."""
        return self._share is None or len(text.encode()) <= self._share * BYTES_PER_TOKEN

    def _beginning(self, text: str) -> str:
        """As much as is read of any answer: half a share, since the middle of a longer one is left out."""
        if self._share is None:
            return text
        return text.encode()[: self._share * BYTES_PER_TOKEN // 2].decode(errors="ignore")


def _text(messages: Sequence[Message]) -> str:
    return "\n".join(map(prompts.text_of, messages))
