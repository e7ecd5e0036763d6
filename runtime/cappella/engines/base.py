"""What the ensemble needs of an engine, and nothing more."""

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Protocol

from cappella.types import Chunk, EngineStatus, Message, Sampling


class Engine(Protocol):
    """One model that answers. Implementations raise only EngineError, before or while they stream."""

    @property
    def status(self) -> EngineStatus: ...

    @property
    def special_tokens(self) -> Sequence[str]:
        """Strings that the model's tokenizer reads as control tokens."""
        ...

    def chat(
        self, messages: Sequence[Message], sampling: Sampling, schema: dict[str, Any] | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """Stream one answer; with a schema it is JSON of that schema. Closing the generator frees the engine."""
        ...
