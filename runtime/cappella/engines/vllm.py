"""An engine over one vLLM server's OpenAI API on a Unix socket."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import orjson

from cappella.errors import EngineBroke, EngineContextExceeded, EngineError, EngineNotReady, EngineRejected
from cappella.types import Chunk, EngineStatus, Message, Sampling, Usage

KEEP_ALIVE_S = 15.0

# vLLM names the parameter that does not fit; its messages change from release to release.
_CONTEXT_PARAMS = ("input_tokens", "max_tokens", "max_completion_tokens", "input_text")


@dataclass(frozen=True, slots=True)
class Forwarded:
    """An engine's own reply, to be handed on as it is."""

    status_code: int
    content_type: str
    body: AsyncIterator[bytes]


class VllmEngine:
    """Speaks to the server behind `socket`; whether that server is up, `status` says."""

    def __init__(self, socket: Path, status: EngineStatus, special_tokens: Sequence[str] = ()) -> None:
        self.status = status
        self.special_tokens = special_tokens
        self._socket = socket
        self._session: aiohttp.ClientSession | None = None

    async def chat(
        self, messages: Sequence[Message], sampling: Sampling, schema: dict[str, Any] | None = None
    ) -> AsyncGenerator[Chunk, None]:
        """See `Engine.chat`."""
        self.require_ready()
        async with aclosing(self._stream(messages, sampling, schema)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def probe(self) -> None:
        """Generate one token, whatever the state. Raises EngineError if that fails."""
        ping = [{"role": "user", "content": "Hello"}]
        async with aclosing(self._stream(ping, Sampling(max_completion_tokens=1), None)) as chunks:
            async for _ in chunks:
                pass

    async def _stream(
        self, messages: Sequence[Message], sampling: Sampling, schema: dict[str, Any] | None
    ) -> AsyncGenerator[Chunk, None]:
        """Always a stream on the wire, since only that lets an abort reach the engine."""
        body = {
            "model": self.status.model,
            "messages": list(messages),
            "stream": True,
            "stream_options": {"include_usage": True},
            **sampling.given(),
        }
        if schema is not None:
            body["response_format"] = {"type": "json_schema", "json_schema": {"name": "analysis", "schema": schema}}
        async with self._post("/v1/chat/completions", orjson.dumps(body)) as response:
            if response.status != 200:
                raise _rejection(response.status, await response.read())
            async for chunk in _chunks(response):
                yield chunk

    @asynccontextmanager
    async def forward(self, path: str, body: bytes) -> AsyncIterator[Forwarded]:
        """Hand a client's own bytes to the engine, and its reply back. Leaving the context aborts the call."""
        self.require_ready()
        async with self._post(path, body) as response:
            yield Forwarded(response.status, response.content_type, _raw(response))

    def require_ready(self) -> None:
        if self.status.state != "ready":
            raise EngineNotReady(f"{self.status.model} is {self.status.state}: {self.status.stage}")

    async def healthy(self) -> bool:
        """True if the server says that its core is alive. Raises EngineError if it is slow to answer, or breaks off."""
        try:
            async with self._http.get("/health", timeout=aiohttp.ClientTimeout(total=10)) as response:
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
    async def _post(self, path: str, body: bytes) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Content-Type": "application/json"}
        try:
            # aiohttp warns of raw bytes above a megabyte.
            async with self._http.post(path, data=BytesIO(body), headers=headers) as response:
                yield response
        except (aiohttp.ClientError, aiohttp.http_exceptions.HttpProcessingError, OSError) as error:
            raise EngineBroke(f"{self.status.model} broke off: {error or type(error).__name__}") from error


async def _raw(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for data in response.content.iter_any():
        yield data


async def _chunks(response: aiohttp.ClientResponse) -> AsyncIterator[Chunk]:
    """Decode server-sent events; a stream that ends without [DONE] or holds no JSON is broken."""
    async for line in response.content:
        if not line.startswith(b"data:"):
            continue
        data = line[5:].strip()
        if data == b"[DONE]":
            return
        try:
            yield _chunk(orjson.loads(data))
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise EngineBroke(f"the stream holds what is no chunk: {data[:80]!r}") from error
    raise EngineBroke("the stream ended before its end mark")


def _chunk(event: Mapping[str, Any]) -> Chunk:
    if "error" in event:
        raise EngineBroke(str(event["error"].get("message", "error without a message")))
    usage = _usage(event["usage"]) if event.get("usage") else None
    if not event.get("choices"):
        return Chunk(usage=usage)
    choice = event["choices"][0]
    delta = choice["delta"]
    content, reasoning = delta.get("content") or "", delta.get("reasoning") or delta.get("reasoning_content") or ""
    finish_reason = choice.get("finish_reason")
    if not all(isinstance(text, str) for text in (content, reasoning, finish_reason or "")):
        raise TypeError("a text that is none")
    return Chunk(content, reasoning, finish_reason, usage)


def _usage(wire: Mapping[str, Any]) -> Usage:
    prompt_details = wire.get("prompt_tokens_details") or {}
    completion_details = wire.get("completion_tokens_details") or {}
    return Usage(
        prompt_tokens=int(wire.get("prompt_tokens") or 0),
        cached_tokens=int(prompt_details.get("cached_tokens") or 0),
        completion_tokens=int(wire.get("completion_tokens") or 0),
        reasoning_tokens=int(completion_details.get("reasoning_tokens") or 0),
    )


def _rejection(status_code: int, body: bytes) -> EngineError:
    try:
        error = orjson.loads(body)["error"]
        message, param = str(error["message"]), error.get("param")
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return EngineBroke(f"the engine answered {status_code} with no readable reason")
    if status_code >= 500:
        return EngineBroke(message)
    if status_code == 400 and param in _CONTEXT_PARAMS:
        return EngineContextExceeded(message, status_code)
    return EngineRejected(message, status_code)
