"""An engine over one vLLM server's OpenAI API on a Unix socket."""

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import aiohttp
import orjson

from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.status import EngineStatus
from cappella.engines.vllm import protocol
from cappella.engines.vllm.sanitize import PlainText
from cappella.errors import EngineBroke, EngineNotReady
from cappella.types import Capabilities, Chunk, Prompt, Sampling

KEEP_ALIVE_S = 15.0
HEALTH_TIMEOUT_S = 3.0

Seat = Callable[[], AbstractAsyncContextManager[None]]
"""From when the engine may be called until the caller is done."""


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An engine's own reply, to be handed on as it is."""

    status_code: int
    content_type: str
    body: AsyncIterator[bytes]
    abort: Callable[[], None]


class VllmEngine:
    """Speaks to the server behind `socket`; whether that server is up, `status` says.

    What a prompt says is made `plain` for its tokenizer. Where engines take turns, each call waits for a `seat` first.
    `name` is an adapter's, where the server has adapters; all the names of one server share its `pulse`.
    """

    def __init__(
        self,
        socket: Path,
        status: EngineStatus,
        plain: PlainText = PlainText(),
        capabilities: Capabilities = Capabilities(),
        seat: Seat | None = None,
        name: str | None = None,
        circuit_breaker: CircuitBreaker | None = None,
    ) -> None:
        self.status = status
        self.name = name or status.model
        self._plain = plain
        self.capabilities = capabilities
        self.in_flight = 0
        self.circuit_breaker = circuit_breaker or CircuitBreaker()
        self._seat = seat
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None
        self._replies: set[aiohttp.ClientResponse] = set()

    def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `Engine.chat`."""
        self.require_calls_taken()
        # Another generator around each chunk only where it is needed.
        return self._seated(prompt, sampling) if self._seat else self._stream(prompt, sampling)

    async def _seated(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        async with self._awake(), aclosing(self._stream(prompt, sampling)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def count_tokens(self, prompt: Prompt) -> int:
        """See `Engine.count_tokens`."""
        self.require_calls_taken()
        prompt = self._plain.prompt(prompt)
        body = {"model": self.name, "messages": list(prompt.messages), "add_generation_prompt": True}
        tools = {"tools": list(prompt.tools)} if prompt.tools else {}
        async with self._awake(), self._post("/tokenize", orjson.dumps({**body, **tools})) as response:
            reply = await response.read()
            if response.status != 200:
                raise protocol.rejection(response.status, reply)
        return protocol.token_count(reply)

    async def probe(self) -> None:
        """Generate one token, whatever the state. Raises EngineError if that fails.

        With logprobs, since the first request for them compiles for seconds.
        """
        ping = Prompt([{"role": "user", "content": "Hello"}], logprobs=1)
        async with aclosing(self._stream(ping, Sampling(max_completion_tokens=1), is_probe=True)) as chunks:
            async for _ in chunks:
                pass

    async def sleep(self) -> None:
        """Put the weights into this machine's memory and drop the KV cache (vLLM's level 1). Raises EngineError."""
        await self._command("/sleep?level=1")

    async def wake_up(self) -> None:
        """Undo `sleep`. Raises EngineError."""
        await self._command("/wake_up")

    async def _command(self, path: str) -> None:
        async with self._post(path, b"") as response:
            if response.status != 200:
                raise protocol.rejection(response.status, await response.read())

    async def _stream(self, prompt: Prompt, sampling: Sampling, is_probe: bool = False) -> AsyncGenerator[Chunk, None]:
        """Always a stream on the wire, since only that lets an abort reach the engine."""
        body = protocol.body(self.name, self._plain.prompt(prompt), sampling, self.in_flight)
        async with self._post("/v1/chat/completions", orjson.dumps(body), is_probe) as response:
            if response.status != 200:
                raise protocol.rejection(response.status, await response.read())
            async for chunk in protocol.chunks(response.content.iter_any()):
                self.circuit_breaker.hear()
                yield chunk

    @asynccontextmanager
    async def forward(self, path: str, body: bytes) -> AsyncIterator[Forwarded]:
        """Hand a client's own bytes to the engine, and its reply back, also a refusal. Leaving the context aborts the call.

        Raises EngineError for a reply that says that the engine itself is broken.
        """
        self.require_calls_taken()
        async with self._awake(), self._post(path, body) as response:
            if response.status >= 500:
                raise protocol.rejection(response.status, await response.read())
            yield Forwarded(response.status, response.content_type, self._raw(response), response.close)

    def require_calls_taken(self) -> None:
        """Raises EngineNotReady unless the engine is up, or will wake for a call."""
        if not self.status.accepts_requests:
            raise EngineNotReady(f"{self.status.model} is {self.status.state}: {self.status.stage}")

    @asynccontextmanager
    async def _awake(self) -> AsyncIterator[None]:
        async with self._seat() if self._seat else nullcontext():
            if self.status.state != "ready":
                raise EngineNotReady(f"{self.status.model} did not wake: {self.status.stage}")
            yield

    async def healthy(self) -> bool:
        """True if the server says that its core is alive. Raises EngineError if it is slow to answer, or breaks off."""
        try:
            async with self._http.get("/health", timeout=aiohttp.ClientTimeout(total=HEALTH_TIMEOUT_S)) as response:
                return response.status == 200
        except aiohttp.ClientConnectorError:
            # A server whose core died closes its socket soon and then waits for its last calls.
            return False
        except (aiohttp.ClientError, OSError) as error:
            raise EngineBroke(f"{self.status.model} does not answer: {error}") from error

    async def metrics(self) -> str:
        """The server's own figures in Prometheus' text form."""
        try:
            async with self._http.get("/metrics", timeout=aiohttp.ClientTimeout(total=5)) as response:
                response.raise_for_status()
                return await response.text()
        except (aiohttp.ClientError, OSError) as error:
            raise EngineBroke(f"{self.status.model} does not answer: {error}") from error

    async def close(self) -> None:
        """Drop every connection to the server; calls in flight fail, later ones connect anew."""
        if self._session is not None:
            session, self._session = self._session, None
            # A session that closes forgets whoever reads a reply of its own: he would wait for ever.
            for reply in list(self._replies):
                reply.close()
            await session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                "http://engine",
                connector=aiohttp.UnixConnector(str(self._socket), limit=0, keepalive_timeout=KEEP_ALIVE_S),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
                # One event may be one line of a megabyte: a whole analysis in one chunk, say.
                read_bufsize=1 << 20,
            )
        return self._session

    @asynccontextmanager
    async def _post(self, path: str, body: bytes, is_probe: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
        """A probe tells of the engine's health by its result; whether calls end well is for the others to show."""
        headers = {"Content-Type": "application/json"}
        life = None if is_probe else self.circuit_breaker.life
        self.in_flight += 1
        try:
            # aiohttp warns of raw bytes above a megabyte.
            async with self._http.post(path, data=BytesIO(body), headers=headers) as response:
                self._replies.add(response)
                try:
                    yield response
                finally:
                    self._replies.discard(response)
            self._count(True, life)
        except EngineBroke:
            self._count(False, life)
            raise
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
            self._count(False, life)
            raise EngineBroke(f"{self.status.model} broke off: {_reason(error)}") from error
        finally:
            self.in_flight -= 1

    def _count(self, ended_well: bool, life: int | None) -> None:
        if life is not None:
            self.circuit_breaker.count(ended_well, life)

    async def _raw(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        async for data in response.content.iter_any():
            self.circuit_breaker.hear()
            yield data


def _reason(error: Exception) -> str:
    """In words for a client: where the socket lies is not for its eyes."""
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({error.strerror})"
    return str(error) or type(error).__name__
