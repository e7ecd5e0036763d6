"""What the ensemble needs of an engine, and nothing more."""

from collections.abc import AsyncGenerator
from typing import Protocol

from cappella.engines.status import EngineStatus
from cappella.types import Capabilities, Chunk, Prompt, Sampling


class Engine(Protocol):
    """One model that answers. Implementations raise only EngineError, before or while they stream.

    Every text of a prompt is text to it: what looks like a token of control, and so like another turn, is none.
    """

    @property
    def status(self) -> EngineStatus: ...

    @property
    def in_flight(self) -> int:
        """How many calls are under way, this process's own."""
        ...

    @property
    def capabilities(self) -> Capabilities: ...

    def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Stream the answers, as many as the prompt has samples. Closing the generator frees the engine."""
        ...

    async def count_tokens(self, prompt: Prompt) -> int:
        """How many tokens the prompt has for this model, with everything that its chat template adds."""
        ...
