"""MCP's messages over streamable HTTP, to a server that runs already."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
import httpx2
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.message import SessionMessage

from cappella.config import UrlTool
from cappella.errors import ToolServerLost, cause
from cappella.tools.mcp.session import MAX_MESSAGE_BYTES, Streams
from cappella.tools.mcp.unasked import Unasked

CONNECT_TIMEOUT_S = 10.0


@asynccontextmanager
async def streams(tool: UrlTool) -> AsyncGenerator[Streams, None]:
    """The messages from and to a server.

    Raises ToolServerLost where there is no key and for a server that keeps to no limit, and httpx2's errors.
    """
    timeout = httpx2.Timeout(CONNECT_TIMEOUT_S, read=None)
    async with (
        # Proxies of the environment would be other machines.
        httpx2.AsyncClient(headers=_headers(tool), timeout=timeout, trust_env=False, transport=_Bounded()) as client,
        streamable_http_client(tool.url, http_client=client, max_sse_event_size=MAX_MESSAGE_BYTES) as transport,
        _counted(transport) as counted,
    ):
        yield counted


@asynccontextmanager
async def _counted(transport: Streams) -> AsyncGenerator[Streams, None]:
    """The same streams: they raise ToolServerLost when the server says too much that nobody asked for."""
    received, inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outbox, sent = anyio.create_memory_object_stream[SessionMessage](0)
    unasked = Unasked()
    async with received, inbox, outbox, sent, anyio.create_task_group() as tasks:
        tasks.start_soon(_receive, transport, received, unasked)
        tasks.start_soon(_send, transport, sent, unasked)
        try:
            yield inbox, outbox
        finally:
            tasks.cancel_scope.cancel()


async def _receive(
    transport: Streams, received: MemoryObjectSendStream[SessionMessage | Exception], unasked: Unasked
) -> None:
    """Hand on each message, until the transport ends. Raises ToolServerLost."""
    async with received:
        async for item in transport[0]:
            message = item.message if isinstance(item, SessionMessage) else None
            if not unasked.is_answer(message):
                unasked.count(len(message.model_dump_json(by_alias=True, exclude_unset=True)) if message else 0)
            await received.send(item)


async def _send(transport: Streams, sent: MemoryObjectReceiveStream[SessionMessage], unasked: Unasked) -> None:
    async for item in sent:
        unasked.ask(item.message)
        await transport[1].send(item)


def _headers(tool: UrlTool) -> dict[str, str]:
    if tool.key_file is None:
        return {"Accept-Encoding": "identity"}
    try:
        key = tool.key_file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ToolServerLost(f"its key file {tool.key_file} cannot be read ({cause(error)})") from error
    return {"Accept-Encoding": "identity", "Authorization": f"Bearer {key}"}


class _Bounded(httpx2.AsyncHTTPTransport):
    """Breaks off a reply that is one message and too large; those of a stream have the limit of an event."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        response = await super().handle_async_request(request)
        if response.headers.get("content-encoding", "identity") != "identity":
            # A few bytes could become gigabytes: limits count bytes as they come.
            await response.aclose()
            raise httpx2.ReadError("a compressed message, which was not asked for")
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            assert isinstance(response.stream, httpx2.AsyncByteStream)
            response.stream = _BoundedStream(response.stream)
        return response


class _BoundedStream(httpx2.AsyncByteStream):
    def __init__(self, inner: httpx2.AsyncByteStream) -> None:
        self._inner = inner

    async def __aiter__(self) -> AsyncIterator[bytes]:
        read = 0
        async for block in self._inner:
            read += len(block)
            if read > MAX_MESSAGE_BYTES:
                raise httpx2.ReadError(f"a message of more than {MAX_MESSAGE_BYTES >> 20} MiB")
            yield block

    async def aclose(self) -> None:
        await self._inner.aclose()
