"""One engine call as it speaks: deltas out, and everything said so far kept, whatever happens to the call."""

import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal

from cappella.engines.base import Engine
from cappella.errors import EngineBroke, EngineUnusable
from cappella.types import Call, Message, Sampling, Usage


class Voice:
    """`text`, `reasoning` and `call` can be read at any moment; `finish_reason` is None until the end.

    `first_token_at` is on the clock of `time.monotonic`.
    """

    def __init__(self, role: Literal["panel", "analysis", "final"], name: str) -> None:
        self.finish_reason: str | None = None
        self._role = role
        self._name = name
        self._content: list[str] = []
        self._reasoning: list[str] = []
        self._usage = Usage()
        self.spoke = False
        self.first_token_at: float | None = None
        self._began = self._ended = time.monotonic()

    @property
    def text(self) -> str:
        return "".join(self._content)

    @property
    def reasoning(self) -> str:
        return "".join(self._reasoning)

    @property
    def call(self) -> Call:
        first_token_s = self.first_token_at and self.first_token_at - self._began
        return Call(self._role, self._name, self._usage, first_token_s, self._ended - self._began)

    async def speak(
        self, engine: Engine, messages: Sequence[Message], sampling: Sampling, schema: dict[str, Any] | None = None
    ) -> AsyncGenerator[str, None]:
        """Yield the answer's text as it comes. Raises EngineError, also for an answer without text or end."""
        self.spoke = True
        self._began = time.monotonic()
        try:
            async with aclosing(engine.chat(messages, sampling, schema)) as chunks:
                async for chunk in chunks:
                    self.finish_reason = chunk.finish_reason or self.finish_reason
                    self._usage = chunk.usage or self._usage
                    self._reasoning.append(chunk.reasoning)
                    if chunk.content or chunk.reasoning:
                        self.first_token_at = self.first_token_at or time.monotonic()
                    if chunk.content:
                        self._content.append(chunk.content)
                        yield chunk.content
        finally:
            self._ended = time.monotonic()
        if self.finish_reason is None:
            raise EngineBroke(f"the answer of {self._name} has no end")
        if not self.text.strip():
            raise EngineUnusable(f"{self._name} gave an empty answer", "empty_answer")
