"""What every engine over an OpenAI-compatible HTTP server does alike: streams, forwarded replies, connections."""

import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cappella.engines import openai
from cappella.engines.base import Forwarded, Seat
from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.sanitize import PlainText
from cappella.engines.status import EngineStatus
from cappella.errors import EngineBroke, EngineNotReady
from cappella.types import Capabilities, Chunk, Json, Prompt, Sampling

KEEP_ALIVE_S = 15.0
HEALTH_TIMEOUT_S = 3.0
FIGURES_TIMEOUT_S = 5.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. `base` is its API's address, up to and with /v1; over a Unix `socket` if one is named.

    A server on a socket is one of our own: it knows the model by the name that clients call.
    """

    base: str = "http://engine/v1"
    socket: Path | None = None
    key: str | None = field(default=None, repr=False)

    def url(self, path: str) -> str:
        """/v1/... lies under `base`; every other path, such as /metrics, beside it."""
        if path.startswith("/v1/"):
            return self.base + path.removeprefix("/v1")
        return self.base.removesuffix("/v1") + path

    def session(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(str(self.socket), limit=0, keepalive_timeout=KEEP_ALIVE_S)
            if self.socket
            else aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {self.key}"} if self.key else None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            # One event may be one line of a megabyte: a whole analysis in one chunk, say.
            read_bufsize=1 << 20,
        )


class HttpEngine:
    """Speaks to the server at `address`, a Path being a Unix socket; whether that server is up, `status` says.

    What a prompt says is made `plain` for its tokenizer. Where engines take turns, each call waits for a `seat` first.
    `name` is what the server calls the model, if that is not the model's name in the config.
    """

    def __init__(
        self,
        address: Address | Path,
        status: EngineStatus,
        plain: PlainText = PlainText(),
        capabilities: Capabilities = Capabilities(),
        seat: Seat | None = None,
        name: str | None = None,
        circuit_breaker: CircuitBreaker | None = None,
    ) -> None:
        self.status = status
        self.name = name or status.model
        self.capabilities = capabilities
        self.in_flight = 0
        self.circuit_breaker = circuit_breaker or CircuitBreaker()
        self._plain = plain
        self._seat = seat
        self._address = address if isinstance(address, Address) else Address(socket=address)
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

    async def probe(self) -> None:
        """See `EngineServer.probe`."""
        async with aclosing(self._stream(self._ping(), Sampling(max_completion_tokens=1), is_probe=True)) as chunks:
            async for _ in chunks:
                pass

    def _ping(self) -> Prompt:
        return Prompt([{"role": "user", "content": "Hello"}])

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """A streamed chat request in the server's own dialect."""
        raise NotImplementedError

    async def _stream(self, prompt: Prompt, sampling: Sampling, is_probe: bool = False) -> AsyncGenerator[Chunk, None]:
        """Always a stream on the wire, since only that lets an abort reach the engine."""
        body = self._body(self._plain.prompt(prompt), sampling)
        async with self._post("/v1/chat/completions", orjson.dumps(body), is_probe) as response:
            if response.status != 200:
                raise openai.rejection(response.status, await response.read())
            async for chunk in openai.chunks(response.content.iter_any()):
                self.circuit_breaker.hear()
                yield chunk

    @asynccontextmanager
    async def forward(self, path: str, body: bytes) -> AsyncIterator[Forwarded]:
        """See `EngineServer.forward`. Raises EngineError for a reply that says that the engine itself is broken."""
        self.require_calls_taken()
        if self._address.socket is None:
            body = orjson.dumps({**orjson.loads(body), "model": self.name})
        async with self._awake(), self._post(path, body) as response:
            if openai.is_servers_fault(response.status):
                raise openai.rejection(response.status, await response.read())
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

    async def listed(self) -> list[Json]:
        """The server's own list of its models; empty where it has none. Raises EngineBroke if it is not well."""
        async with self._get("/v1/models", HEALTH_TIMEOUT_S) as response:
            reply = await response.read()
        if openai.is_servers_fault(response.status):
            raise EngineBroke(f"{self.status.model}: {openai.rejection(response.status, reply)}")
        return openai.models(reply) if response.status == 200 else []

    async def close(self) -> None:
        """See `EngineServer.close`."""
        if self._session is not None:
            session, self._session = self._session, None
            # A session that closes forgets whoever reads a reply of its own: he would wait for ever.
            for reply in list(self._replies):
                reply.close()
            await session.close()

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._address.session()
        return self._session

    @asynccontextmanager
    async def _get(self, path: str, timeout_s: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """A look at the server, which counts as no call. Raises EngineBroke if no reply comes."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.get(self._address.url(path), timeout=timeout, allow_redirects=False) as response:
                yield response
        except (aiohttp.ClientError, OSError) as error:
            raise EngineBroke(f"{self.status.model} does not answer: {_reason(error)}") from error

    @asynccontextmanager
    async def _post(self, path: str, body: bytes, is_probe: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
        """A probe tells of the engine's health by its result; whether calls end well is for the others to show."""
        life = None if is_probe else self.circuit_breaker.life
        self.in_flight += 1
        try:
            # aiohttp warns of raw bytes above a megabyte.
            async with self._http.post(
                self._address.url(path),
                data=BytesIO(body),
                headers={"Content-Type": "application/json"},
                allow_redirects=False,
            ) as response:
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
    """In words for a client: where the server lies is not for its eyes."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "no connection (its certificate is not trusted)"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({os.strerror(error.errno) if error.errno else type(error).__name__})"
    return str(error) or type(error).__name__
