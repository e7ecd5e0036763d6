"""Fill the judge's prefix cache while the panel speaks, so that little is left to read when the last member stops."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager

from cappella.background import background
from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.call import EngineCall
from cappella.ensemble.calls import CHARACTERS_PER_TOKEN
from cappella.ensemble.candidates import Ordering
from cappella.ensemble.events import AnswerDelta, AnswerDone, AnswerFailed, Event, RoundStarted
from cappella.ensemble.run import Answer, Call
from cappella.errors import EngineError
from cappella.types import Message, Prompt, Sampling

STEP_TOKENS = 128
"""New tokens that are worth a call: the largest block of vLLM's cache, on a CPU; a GPU's have 16."""

BUSY_CALLS = 4
"""With so many calls on the judge's engine already, prefill ahead of time would only stand in their way."""


class EarlyPrefill:
    """Sends the judge its prompt as far as it is known: the conversation, whole answers, the last one as it grows.

    Begins when the first member is done: before that the panel itself keeps a shared GPU, or the cores, busy. One call
    at a time, of one token, for at least STEP_TOKENS that are new. A call that fails ends it: the judge will then read
    everything at once.
    """

    def __init__(self, engine: Engine, prompt: Prompt, ordering: Ordering, settings: Settings) -> None:
        self.voices: list[EngineCall] = []
        self._engine = engine
        self._prompt = prompt
        self._ordering = ordering
        self._settings = settings
        self._is_last_round = False
        self._answers: dict[str, Answer] = {}
        self._failed: set[str] = set()
        self._growing: dict[str, list[str]] = {}
        self._changed = asyncio.Event()
        self._sent = ""
        self._grown = 0
        self._characters_per_token = float(CHARACTERS_PER_TOKEN)

    @property
    def calls(self) -> Sequence[Call]:
        return [voice.call for voice in self.voices if voice.spoke]

    def hear(self, event: Event) -> None:
        """Take in what the panel says; never waits."""
        match event:
            case AnswerDelta():
                self._growing.setdefault(event.name, []).append(event.text)
                self._grown += len(event.text)
                # Only a step's worth of text is worth a look: this comes once per token.
                if self._grown < STEP_TOKENS * self._characters_per_token:
                    return
                self._grown = 0
            case AnswerDone():
                self._answers[event.answer.name] = event.answer
            case AnswerFailed():
                self._failed.add(event.failure.name)
            case RoundStarted():
                for heard in (self._answers, self._failed, self._growing):
                    heard.clear()
            case _:
                return
        self._changed.set()

    @asynccontextmanager
    async def running(self, is_last: bool) -> AsyncIterator[None]:
        """While a round of the panel is asked; a call that is under way at the end is broken off.

        Only what the last round says is read: the judge sees nothing else.
        """
        self._is_last_round = is_last
        async with background(self._run()) as task:
            yield
        if not task.cancelled() and not isinstance(error := task.exception(), EngineError | None):
            raise error

    async def _run(self) -> None:
        while True:
            messages = self._messages()
            text = "\n".join(prompts.text_of(message) for message in messages)
            if self._is_worth_a_call(text):
                self._sent = text
                await self._send(messages, len(text))
            else:
                self._changed.clear()
                await self._changed.wait()

    def _is_worth_a_call(self, text: str) -> bool:
        waited_for = len(self._settings.answer_names) - len(self._failed) - len(self._answers)
        if waited_for == 0 or (waited_for > 1 and not self._answers):
            return False
        if self._engine.status.state != "ready" or self._engine.in_flight >= BUSY_CALLS:
            return False
        known = len(self._sent) if text.startswith(self._sent) else 0
        return len(text) - known >= STEP_TOKENS * self._characters_per_token

    async def _send(self, messages: Sequence[Message], characters: int) -> None:
        voice = EngineCall("prefill", self._settings.judge)
        self.voices.append(voice)
        prompt = Prompt(
            messages,
            self._prompt.tools,
            "none" if self._prompt.tools else None,
            reasoning_effort=self._prompt.reasoning_effort,
        )
        async with aclosing(voice.speak(self._engine, prompt, Sampling(max_completion_tokens=1))) as chunks:
            async for _ in chunks:
                pass
        if tokens := voice.call.usage.prompt_tokens:
            self._characters_per_token = characters / tokens

    def _messages(self) -> list[Message]:
        """The judge's messages up to the first thing that is not known yet."""
        names = [name for name in self._settings.answer_names if name not in self._failed]
        whole: list[Answer] = []
        growing: str | None = None
        for name in self._ordering.ordered(names) if self._is_last_round else ():
            if name not in self._answers:
                if len(names) - len(self._answers) == 1 and not self._settings.show_reasoning:
                    growing = "".join(self._growing.get(name, ()))
                break
            whole.append(self._answers[name])
        texts = self._ordering.candidates(whole).texts
        return prompts.opening_messages(self._prompt.messages, texts, self._ordering.nonce, growing)
