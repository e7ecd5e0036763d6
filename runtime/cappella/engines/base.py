"""The Protocols of a backend: `Engine`, which a run calls, `EngineServer`, which the gateway uses, and `SingleServer`, which is watched.

To add a backend:

1. Write a class with the methods of `SingleServer`. `HttpEngine` has most of them for any server with OpenAI's HTTP API.
2. Return it from `backends.local_engines`, or from `backends.remote_engine` by the config key `api`.
3. For a server that Cappella starts, `backends` also holds its module, command line, environment and the stages of its
   start (`startup_log.StartupStages`), and `backends.launcher` returns what starts it (`launcher.Launcher`).

`status` is shared: the supervisor writes it (see `reconciler.transition`), an implementation only reads it.
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.status import EngineStatus
from cappella.engines.waiting import Tell
from cappella.types import Capabilities, Chunk, Prompt, Sampling, Usage

HoldAwake = Callable[[Tell], AbstractAsyncContextManager[None]]
"""A context for each call to an engine that may sleep: entering waits until the engine is awake, and keeps it so."""
KeepAwake = Callable[[], AbstractContextManager[None]]
"""See `Engine.keep_awake`."""


@dataclass(frozen=True, slots=True)
class TokenCount:
    """The size of a prompt in tokens: `exact` if the model's own tokenizer counted them, else an estimate."""

    tokens: int
    exact: bool = True


@dataclass(frozen=True, slots=True)
class Score:
    """How good an answer is, as a model trained for that says; only scores of one model can be compared."""

    value: float
    usage: Usage


@dataclass(frozen=True, slots=True)
class Embeddings:
    """A vector for each of several texts, in their order."""

    vectors: Sequence[Sequence[float]]
    usage: Usage


@dataclass(frozen=True, slots=True)
class EngineStats:
    """A server's load now; None is what it does not report. `kv_usage` is from 0 to 1, token counts are totals since it started."""

    kv_usage: float | None = None
    running: int | None = None
    waiting: int | None = None
    generation_tokens: float | None = None
    prompt_tokens: float | None = None

    @property
    def step_counters(self) -> "EngineStats":
        """The fields that change with every scheduler step, also during a prefill that yields no token yet."""
        return replace(self, running=None, waiting=None)


@dataclass(frozen=True, slots=True)
class ForwardedReply:
    """A server's own reply, to be passed on unchanged."""

    status_code: int
    content_type: str
    body: AsyncIterator[bytes]
    abort: Callable[[], None]


class Engine(Protocol):
    """One model that answers prompts. Implementations raise only EngineError, before or during a stream.

    All text of a prompt is plain text: an implementation escapes what the tokenizer would read as a special token.
    """

    @property
    def status(self) -> EngineStatus:
        """The engine's state; only an engine that `accepts_requests` may be called."""
        ...

    @property
    def in_flight(self) -> int:
        """The number of calls in flight from this process."""
        ...

    @property
    def capabilities(self) -> Capabilities:
        """What the model and its server accept beyond plain text."""
        ...

    def keep_awake(self) -> AbstractContextManager[None]:
        """For a run that will call the engine: in this context it does not fall asleep for want of calls.

        An engine that sleeps for that reason begins to wake; entering does not wait.
        """
        ...

    def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Stream `prompt.samples` answers. Closing the generator aborts the call and frees its KV cache.

        Raises EngineNotReady, EngineRejected, EngineContextExceeded or EngineBroke.
        """
        ...

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """The size of the prompt for this model, including what its chat template adds."""
        ...

    async def score(self, prompt: Prompt, answer: str) -> Score:
        """The score of an answer to the prompt. Raises EngineRejected unless its task is to score answers."""
        ...

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """The embeddings of texts, of long ones by their beginning. Raises EngineRejected unless its task is to embed."""
        ...


class EngineServer(Engine, Protocol):
    """An engine, or one of its adapters, as the gateway uses it. Methods raise only EngineError."""

    def supports(self, path: str) -> bool:
        """Whether `forward` accepts this path of OpenAI's API, such as /v1/responses."""
        ...

    def forward(
        self, path: str, body: bytes, sending: Callable[[], None] = lambda: None
    ) -> AbstractAsyncContextManager[ForwardedReply]:
        """Send a client's own JSON body to the server and yield its reply, a refusal included. Leaving aborts the call.

        `sending` is called when the engine is awake and the body is sent.
        """
        ...

    @property
    def servers(self) -> Mapping[str, "SingleServer"]:
        """The servers that its calls go to, by name."""
        ...

    async def close(self) -> None:
        """Drop all connections to the server: calls in flight fail, later calls connect again."""
        ...


class SingleServer(EngineServer, Protocol):
    """An engine on one server, with what its health check and its lifecycle need; `Replicas` joins several of them."""

    @property
    def circuit_breaker(self) -> CircuitBreaker:
        """Shared by the engine and all its adapters; an implementation records every call and its output there."""
        ...

    async def probe(self) -> None:
        """Generate one token, whatever the status is; it does not count for the circuit breaker."""
        ...

    async def stats(self) -> EngineStats:
        """The server's load now."""
        ...

    async def metrics(self) -> str:
        """All the server's metrics in Prometheus' text format; empty if it has none."""
        ...

    async def healthy(self) -> bool:
        """Whether the server says that it is healthy; a local server that does not listen is not, a remote one raises."""
        ...

    @property
    def socket_is_gone(self) -> bool:
        """Whether nobody can connect to a local server any longer: its socket was deleted, or the folder around it."""
        ...

    async def sleep(self) -> None:
        """Free the GPU memory while the process lives on."""
        ...

    async def wake_up(self) -> None:
        """Undo `sleep`."""
        ...
