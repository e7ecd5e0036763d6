"""One engine call as it speaks: chunks out, and everything said so far kept, whatever happens to the call."""

import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import replace

from cappella.engines.base import Engine
from cappella.ensemble import calls
from cappella.ensemble.run import Answer, Call, Role
from cappella.errors import EngineBroke, EngineError, EngineNotReady, EngineOverBudget, EngineUnusable
from cappella.types import Chunk, Json, Prompt, Sampling, ToolCall, Usage


class Completion:
    """One of the answers that a call gives, as far as it has come; `finish_reason` is None until its end."""

    def __init__(self) -> None:
        self.finish_reason: str | None = None
        self.stop_sequence: str | None = None
        self.logprobs: list[Json] = []
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._tool_calls: dict[int, ToolCall] = {}

    @property
    def text(self) -> str:
        return "".join(self._content)

    @property
    def written(self) -> str:
        """All that it cost to write."""
        called = [f"{call.name}{call.arguments}" for call in self._tool_calls.values()]
        return "".join([*self._reasoning, *self._content, *called])

    def hear(self, chunk: Chunk) -> Chunk:
        """Take the chunk in; returns it without the empty lines that stand between reasoning and answer."""
        if chunk.content and self._reasoning and not self._content:
            chunk = replace(chunk, content=chunk.content.lstrip("\n"))
        if chunk.content:
            self._content.append(chunk.content)
        if chunk.reasoning:
            self._reasoning.append(chunk.reasoning)
        self.logprobs.extend(chunk.logprobs)
        for piece in chunk.tool_calls:
            begun = self._tool_calls.get(piece.index)
            self._tool_calls[piece.index] = begun.joined(piece) if begun else piece
        self.finish_reason = chunk.finish_reason or self.finish_reason
        self.stop_sequence = chunk.stop_sequence or self.stop_sequence
        return chunk

    def problem(self, name: str) -> EngineError | None:
        """Why this is no answer, if it is none."""
        if self.finish_reason is None:
            return EngineBroke(f"the answer of {name} has no end")
        if not self.text.strip() and not self._tool_calls:
            return EngineUnusable(f"{name} gave an empty answer", "empty_answer")
        return None

    def answer(self, name: str, call: Call) -> Answer:
        return Answer(
            name,
            self.text,
            self.finish_reason or "",
            call,
            "".join(self._reasoning),
            [self._tool_calls[index] for index in sorted(self._tool_calls)],
            self.logprobs,
            self.stop_sequence,
        )


class EngineCall:
    """`takes` and `call` can be read at any moment; `spoke` says whether the engine was called at all.

    `first_token_at` is on the clock of `time.monotonic`.
    """

    def __init__(self, role: Role, model: str, samples: int = 1) -> None:
        self.takes = [Completion() for _ in range(samples)]
        self.spoke = False
        self.first_token_at: float | None = None
        self._role: Role = role
        self._model = model
        self._usage = Usage()
        self._tokens_per_step = 1.0
        self._began = self._ended = time.monotonic()

    @property
    def text(self) -> str:
        """What the first take says."""
        return self.takes[0].text

    @property
    def call(self) -> Call:
        first_token_s = self.first_token_at and self.first_token_at - self._began
        return Call(
            self._role,
            self._model,
            self._usage,
            self._began,
            first_token_s,
            self._ended - self._began,
            self._tokens_per_step,
        )

    async def speak(self, engine: Engine, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Yield what comes. Raises EngineError; whether a take is an answer, its `problem` says."""
        self.spoke = True
        self._began = time.monotonic()
        try:
            async with aclosing(engine.chat(prompt, sampling)) as chunks:
                async for chunk in chunks:
                    self._usage = chunk.usage or self._usage
                    self._tokens_per_step = chunk.tokens_per_step or self._tokens_per_step
                    if chunk.sample >= len(self.takes):
                        raise EngineBroke(f"{self._model} gave an answer that nobody asked for")
                    heard = self.takes[chunk.sample].hear(chunk)
                    if heard.content or heard.reasoning or heard.tool_calls:
                        self.first_token_at = self.first_token_at or time.monotonic()
                    yield heard
        except (EngineNotReady, EngineOverBudget):
            # The call was not made, so it cost nothing and took no time.
            self.spoke = False
            raise
        finally:
            self._ended = time.monotonic()
            if self.spoke:
                calls.count(calls.estimated(self.call, prompt.messages, "".join(take.written for take in self.takes)))

    async def say(
        self,
        engine: Engine,
        prompt: Prompt,
        sampling: Sampling,
        tell: Callable[[Chunk], object] = lambda chunk: None,
    ) -> str:
        """The whole of one answer's text. Raises EngineError, also for an answer without text or end."""
        async with aclosing(self.speak(engine, prompt, sampling)) as chunks:
            async for chunk in chunks:
                tell(chunk)
        if problem := self.takes[0].problem(self._model):
            raise problem
        return self.text
