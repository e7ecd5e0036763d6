"""Base class of engines over an OpenAI-compatible HTTP server: streams, forwarded replies, connections."""

import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AbstractContextManager, aclosing, asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cappella.engines import openai, refusals, thinking, waiting
from cappella.engines.address import Address
from cappella.engines.base import Embeddings, ForwardedReply, HoldAwake, KeepAwake, Score
from cappella.engines.circuit_breaker import CircuitBreaker
from cappella.engines.context_size import ContextSize, prompt_work, without_limit
from cappella.engines.request_body import JsonBody
from cappella.engines.sanitize import Sanitizer
from cappella.engines.status import EngineStatus
from cappella.errors import (
    EngineBroke,
    EngineContextExceeded,
    EngineError,
    EngineGaveUp,
    EngineNotReady,
    EngineRejected,
)
from cappella.threads import off_loop_if_large
from cappella.types import Capabilities, Chunk, Json, Prompt, Sampling

HEALTH_TIMEOUT_S = 3.0
METRICS_TIMEOUT_S = 5.0


class HttpEngine:
    """Client of the server at `address`; a Path is a Unix socket. `status` says whether the server is up.

    The `sanitizer` escapes special tokens in prompts. Where the engine may sleep, `hold_awake` surrounds each call, and `keep_awake` each run. `name`
    is the server's name of the model, if it is not the one in the config. `context` is the model's. Subclasses implement `_body`,
    `count_tokens`, `servers`, `healthy`, `stats`, `metrics`, `sleep`, `wake_up` and `supports`.
    """

    def __init__(
        self,
        address: Address | Path,
        status: EngineStatus,
        sanitizer: Sanitizer = Sanitizer(),
        capabilities: Capabilities = Capabilities(),
        hold_awake: HoldAwake | None = None,
        name: str | None = None,
        circuit_breaker: CircuitBreaker | None = None,
        context: ContextSize | None = None,
        keep_awake: KeepAwake = nullcontext,
    ) -> None:
        self.status = status
        self.name = name or status.model
        self.capabilities = capabilities
        self.in_flight = 0
        self.circuit_breaker = circuit_breaker or CircuitBreaker()
        self._sanitizer = sanitizer
        self._context = context
        self._hold_awake = hold_awake
        self._keep_awake = keep_awake
        self._address = address if isinstance(address, Address) else Address(socket=address)
        self._session: aiohttp.ClientSession | None = None
        self._replies: set[aiohttp.ClientResponse] = set()

    def keep_awake(self) -> AbstractContextManager[None]:
        """See `Engine.keep_awake`."""
        return self._keep_awake()

    def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `Engine.chat`."""
        self.require_accepting()
        # A second generator around each chunk only where it is needed.
        return self._stream_awake(prompt, sampling) if self._hold_awake else self._stream(prompt, sampling)

    async def _stream_awake(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        async with self._awake(), aclosing(self._stream(prompt, sampling)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def score(self, prompt: Prompt, answer: str) -> Score:
        """See `Engine.score`."""
        raise EngineRejected(f"{self.status.model} scores no answers: that takes task: rerank or reward", 400)

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See `Engine.embed`."""
        raise EngineRejected(f"{self.status.model} embeds no texts: that takes task: embed", 400)

    async def probe(self) -> None:
        """See `SingleServer.probe`."""
        async with aclosing(
            self._stream(self._probe_prompt(), Sampling(max_completion_tokens=1), is_probe=True)
        ) as chunks:
            async for _ in chunks:
                pass

    def _probe_prompt(self) -> Prompt:
        return Prompt([{"role": "user", "content": "Hello"}])

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        """The JSON body of a streamed chat request. Raises EngineRejected for what the server does not support."""
        raise NotImplementedError

    async def _stream(self, prompt: Prompt, sampling: Sampling, is_probe: bool = False) -> AsyncGenerator[Chunk, None]:
        """Always a stream on the wire, since only then does closing the connection abort the call.

        A limit on the answer that does not fit beside the prompt is left out, so that the answer has the room there is; so
        is a budget for thinking that the server does not take.
        """
        prompt = await self._plain(prompt)
        await self._require_compilable(prompt)
        sampling = self._context.without_needless_limit(sampling) if self._context else sampling
        sampling = thinking.with_room_to_answer(sampling, self.capabilities)
        while True:
            body = await off_loop_if_large(prompt_work(prompt), self._encoded, prompt, sampling)
            async with self._post("/v1/chat/completions", body, is_probe) as response:
                if response.status == 200:
                    async for chunk in openai.chunks(response.content.iter_any()):
                        self.circuit_breaker.record_output()
                        yield chunk
                    return
                refusal = refusals.from_reply(response.status, await response.read())
                relaxed = _relaxed(sampling, refusal)
                if relaxed is None:
                    # Inside the call, which counts it for the circuit breaker.
                    raise refusal
            sampling = relaxed

    def _encoded(self, prompt: Prompt, sampling: Sampling) -> bytes:
        return orjson.dumps(self._body(prompt, sampling))

    async def _plain(self, prompt: Prompt) -> Prompt:
        """The prompt without special tokens. Raises EngineContextExceeded before it reads one that cannot fit."""
        return await off_loop_if_large(prompt_work(prompt), self._escaped, prompt)

    def _escaped(self, prompt: Prompt) -> Prompt:
        if self._context:
            self._context.require_room(self.status.model, prompt)
        return self._sanitizer.sanitize(prompt)

    @asynccontextmanager
    async def forward(
        self, path: str, body: bytes, sending: Callable[[], None] = lambda: None
    ) -> AsyncIterator[ForwardedReply]:
        """See `EngineServer.forward`. Raises EngineError for a reply with the status of a server's own fault."""
        self.require_accepting()
        await self._require_compilable_body(body)
        async with self._awake(sending), self._post(path, self._forwarded(body)) as response:
            if refusals.is_server_fault(response.status):
                raise refusals.from_reply(response.status, await response.read())
            reply = self._raw(response) if response.status < 400 else self._refusal(response)
            yield ForwardedReply(response.status, response.content_type, reply, response.close)

    @property
    def _is_local(self) -> bool:
        """Whether Cappella started the server, and so knows how."""
        return self._address.socket is not None or self._address.started_here

    @property
    def socket_is_gone(self) -> bool:
        """See `SingleServer.socket_is_gone`."""
        return self._address.socket is not None and not os.path.lexists(self._address.socket)

    async def _require_compilable(self, prompt: Prompt) -> None:
        """Raises EngineRejected for a form of an answer that the server would refuse, where that is known before."""

    async def _require_compilable_body(self, body: bytes) -> None:
        """The same for a client's own body."""

    def _forwarded(self, body: bytes) -> bytes:
        """A client's body as the server gets it."""
        if self._is_local:
            return body
        return orjson.dumps({**orjson.loads(body), "model": self.name})

    def require_accepting(self) -> None:
        """Raises EngineNotReady unless the engine is ready, or asleep and will wake for a call."""
        if not self.status.accepts_requests:
            raise EngineNotReady(f"{self.status.model} is {self.status.state}")

    @asynccontextmanager
    async def _awake(self, then: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
        """Wait until the engine is awake, and call `then`. Raises EngineNotReady if it did not wake."""
        tell = waiting.teller(self.name)
        async with self._hold_awake(tell) if self._hold_awake else nullcontext():
            if self.status.state != "ready":
                raise EngineNotReady(f"{self.status.model} did not wake: it is {self.status.state}")
            then()
            yield

    async def list_models(self) -> list[Json]:
        """The server's /v1/models; empty if it has no such list. Raises EngineBroke if the server does not answer."""
        async with self._get("/v1/models", HEALTH_TIMEOUT_S) as response:
            reply = await response.read()
        if refusals.is_server_fault(response.status):
            raise EngineBroke(f"{self.status.model}: {refusals.from_reply(response.status, reply)}")
        return openai.models(reply) if response.status == 200 else []

    async def close(self) -> None:
        """See `EngineServer.close`."""
        if self._session is not None:
            session, self._session = self._session, None
            # Closing the session does not end the reading of a reply, which would then wait for ever.
            for reply in list(self._replies):
                reply.close()
            await session.close()

    async def move_to(self, address: Address) -> None:
        """Drop all connections, and call the server at another address from now on."""
        await self.close()
        self._address = address

    @property
    def _http(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = self._address.session()
        return self._session

    @asynccontextmanager
    async def _get(self, path: str, timeout_s: float) -> AsyncIterator[aiohttp.ClientResponse]:
        """A GET that the circuit breaker does not count. Raises EngineBroke if no reply comes."""
        timeout = aiohttp.ClientTimeout(total=timeout_s)
        try:
            async with self._http.get(self._address.url(path), timeout=timeout, allow_redirects=False) as response:
                yield response
        except (aiohttp.ClientError, OSError) as error:
            raise EngineBroke(f"{self.status.model} does not answer: {_reason(error)}") from error

    @asynccontextmanager
    async def _post(self, path: str, body: bytes, is_probe: bool = False) -> AsyncIterator[aiohttp.ClientResponse]:
        """A POST that the circuit breaker counts, unless it is a probe.

        Raises EngineBroke if it breaks, EngineRejected if the server gives up on a form of the request.
        """
        launch = None if is_probe else self.circuit_breaker.launch
        self.in_flight += 1
        session = self._http
        try:
            async with session.post(self._address.url(path), data=JsonBody(body), allow_redirects=False) as response:
                # `close` may have come between the reply's head and this line: a read would raise RuntimeError.
                if session.closed:
                    raise aiohttp.ClientConnectionError("the connection was closed")
                self._replies.add(response)
                try:
                    yield response
                finally:
                    self._replies.discard(response)
            if launch is not None:
                self.circuit_breaker.record_success(launch)
        except EngineBroke as error:
            told = refusals.given_up(error, body) if isinstance(error, EngineGaveUp) else error
            if isinstance(told, EngineBroke):
                self._record_break(launch, body)
            raise told from error.__cause__
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
            self._record_break(launch, body)
            raise EngineBroke(f"{self.status.model} broke off: {_reason(error)}") from error
        finally:
            self.in_flight -= 1

    def _record_break(self, launch: int | None, body: bytes) -> None:
        if launch is not None:
            self.circuit_breaker.record_break(launch, body)

    async def _raw(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        async for data in response.content.iter_any():
            self.circuit_breaker.record_output()
            yield data

    async def _refusal(self, response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
        yield refusals.readable(await response.read())


def _relaxed(sampling: Sampling, refusal: EngineError) -> Sampling | None:
    """The sampling without what the server refused; None if it refused something else."""
    if isinstance(refusal, EngineContextExceeded) and sampling.max_completion_tokens is not None:
        return without_limit(sampling)
    return thinking.without_budget(sampling) if thinking.is_refused(refusal, sampling) else None


def _reason(error: Exception) -> str:
    """The error in words for a client, without the server's address."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return "no connection (its certificate is not trusted)"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"no connection ({os.strerror(error.errno) if error.errno else type(error).__name__})"
    return str(error) or type(error).__name__
