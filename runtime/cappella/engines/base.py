"""What a run needs of an engine, and what the gateway and the supervisor need of the server behind it."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.status import EngineStatus
from cappella.types import Capabilities, Chunk, Prompt, Sampling

Seat = Callable[[], AbstractAsyncContextManager[None]]
"""From when the engine may be called until the caller is done."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The size of a prompt. It is `exact` if the model's own tokenizer counted it, else an estimate."""

    tokens: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class EngineFigures:
    """What a server says of its load now; None is what it does not say. Tokens are counted since its start."""

    kv_usage: float | None = None
    running: int | None = None
    waiting: int | None = None
    generation_tokens: float | None = None
    prompt_tokens: float | None = None

    @property
    def steps(self) -> "EngineFigures":
        """Those that move with every step of the engine's core, also while it reads a prompt that no token has come of."""
        return replace(self, running=None, waiting=None)


@dataclass(frozen=True, slots=True)
class Forwarded:
    """A server's own reply, to be handed on as it is."""

    status_code: int
    content_type: str
    body: AsyncIterator[bytes]
    abort: Callable[[], None]


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

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """How many tokens the prompt has for this model, with everything that its chat template adds."""
        ...


class EngineServer(Engine, Protocol):
    """The server behind an engine. Its methods raise only EngineError."""

    @property
    def circuit_breaker(self) -> CircuitBreaker:
        """What its calls show of its health; all the names of one server share it."""
        ...

    def takes(self, path: str) -> bool:
        """Whether `forward` has this path of OpenAI's API, /v1/responses say."""
        ...

    def forward(self, path: str, body: bytes) -> AbstractAsyncContextManager[Forwarded]:
        """Hand a client's own bytes to the server, and its reply back, also a refusal. Leaving aborts the call."""
        ...

    async def probe(self) -> None:
        """Generate one token, whatever the state."""
        ...

    async def healthy(self) -> bool:
        """Whether the server says that it is well; False also where there is none to connect to."""
        ...

    async def figures(self) -> EngineFigures:
        """Its load now."""
        ...

    async def metrics(self) -> str:
        """All its own figures in Prometheus' text form; empty if it has none."""
        ...

    async def sleep(self) -> None:
        """Give its memory back without ending."""
        ...

    async def wake_up(self) -> None:
        """Undo `sleep`."""
        ...

    async def close(self) -> None:
        """Drop every connection to the server; calls in flight fail, later ones connect anew."""
        ...
