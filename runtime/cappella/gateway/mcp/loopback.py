"""Calls of this application's own endpoints, with the headers of a request to it: keys, limits and audit hold as in any call."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Scope

from cappella import sse
from cappella.background import background
from cappella.errors import CappellaError
from cappella.vocabulary import Json

_KEPT = frozenset((b"host", b"origin", b"authorization", b"x-api-key", b"traceparent", b"tracestate"))
_QUEUED = 64
"""Pieces of a reply that may wait to be read."""


@dataclass(frozen=True, slots=True)
class Loopback:
    """See `tools.Asked`: the application itself, for the sender of the request in `scope`."""

    app: ASGIApp
    scope: Scope
    default_model: str

    async def stream(self, body: Json) -> AsyncGenerator[Json, None]:
        async with self._reply("POST", "/v1/chat/completions", orjson.dumps(body)) as reply:
            reader = sse.Reader()
            async for piece in reply:
                for data in reader.feed(piece):
                    if data == sse.DONE:
                        return
                    chunk = orjson.loads(data)
                    if "error" in chunk:
                        raise CappellaError(chunk["error"]["message"])
                    yield chunk
        raise CappellaError("The answer ended early.")

    async def models(self) -> Json:
        async with self._reply("GET", "/v1/models") as reply:
            listed: Json = orjson.loads(b"".join([piece async for piece in reply]))
            return listed

    @asynccontextmanager
    async def _reply(self, method: str, path: str, body: bytes = b"") -> AsyncIterator[AsyncIterator[bytes]]:
        """The pieces of a reply; what makes it ends with the context. Raises CappellaError for any other status than 200."""
        sent: asyncio.Queue[Message | None] = asyncio.Queue(_QUEUED)
        async with background(self._answer(method, path, body, sent)):
            head = await sent.get()
            pieces = _pieces(sent)
            if head is None or head["status"] != 200:
                raise CappellaError(_message(b"".join([piece async for piece in pieces]) if head else b""))
            yield pieces

    async def _answer(self, method: str, path: str, body: bytes, sent: "asyncio.Queue[Message | None]") -> None:
        unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            # The caller leaves by ending this task.
            return unread.pop() if unread else await asyncio.get_running_loop().create_future()

        # What it raises has been logged, and answered with a 500.
        with suppress(Exception):
            await self.app(self._scope(method, path, len(body)), receive, sent.put)
        await sent.put(None)

    def _scope(self, method: str, path: str, length: int) -> Scope:
        """Of the request's own scope only what says who sent it: other parts belong to its connection."""
        kept: Any = {
            name: self.scope.get(name) for name in ("type", "asgi", "http_version", "scheme", "server", "client")
        }
        headers = [(name, value) for name, value in self.scope["headers"] if name in _KEPT]
        headers += [(b"content-type", b"application/json"), (b"content-length", str(length).encode())]
        target = {"method": method, "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": ""}
        return {**kept, **target, "headers": headers}


async def _pieces(sent: "asyncio.Queue[Message | None]") -> AsyncIterator[bytes]:
    while (message := await sent.get()) is not None:
        yield message.get("body", b"")
        if not message.get("more_body"):
            return


def _message(body: bytes) -> str:
    """What an error in OpenAI's form says."""
    try:
        return str(orjson.loads(body)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return "The request could not be answered: see the server's log."
