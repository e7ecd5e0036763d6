"""MCP's messages over a server's standard input and output: one JSON object on each line, within limits."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream
from mcp.shared.message import SessionMessage
from mcp_types import JSONRPCMessage, jsonrpc_message_adapter

from cappella.errors import ToolServerLost
from cappella.threads import off_loop_if_large
from cappella.tools.mcp.process import CommandProcess
from cappella.tools.mcp.session import MAX_MESSAGE_BYTES, Streams
from cappella.tools.mcp.unasked import Unasked

READ_BYTES = 1 << 16
WRITE_TIMEOUT_S = 10.0
"""How long a server may leave its input unread."""


@asynccontextmanager
async def streams(process: CommandProcess) -> AsyncGenerator[Streams, None]:
    """The messages from and to a server. Raises ToolServerLost when it ends, or keeps to no limit."""
    received, inbox = anyio.create_memory_object_stream[SessionMessage | Exception](0)
    outbox, sent = anyio.create_memory_object_stream[SessionMessage](0)
    talk = _Talk(process, received, sent)
    async with received, inbox, outbox, sent, anyio.create_task_group() as tasks:
        tasks.start_soon(talk.read)
        tasks.start_soon(talk.write)
        try:
            yield inbox, outbox
        finally:
            tasks.cancel_scope.cancel()


class _Talk:
    """Both directions with one server."""

    def __init__(
        self,
        process: CommandProcess,
        received: MemoryObjectSendStream[SessionMessage | Exception],
        sent: MemoryObjectReceiveStream[SessionMessage],
    ) -> None:
        self._process = process
        self._received = received
        self._sent = sent
        self._unasked = Unasked()

    async def read(self) -> None:
        """Hand on each message, until the server ends: then raises ToolServerLost."""
        async for line in _lines(self._process):
            message = await off_loop_if_large(len(line), _parsed, line)
            if not self._unasked.is_answer(message):
                self._unasked.count(len(line))
            if message is not None:
                await self._received.send(SessionMessage(message))
        raise ToolServerLost(await self._process.reason())

    async def write(self) -> None:
        """Send each message. Raises ToolServerLost for a server that reads none of them."""
        async for item in self._sent:
            self._unasked.ask(item.message)
            text = item.message.model_dump_json(by_alias=True, exclude_unset=True)
            self._process.stdin.write(f"{text}\n".encode())
            try:
                async with asyncio.timeout(WRITE_TIMEOUT_S):
                    await self._process.stdin.drain()
            except TimeoutError:
                raise ToolServerLost(f"it read nothing of its standard input for {WRITE_TIMEOUT_S:g} s") from None
            except ConnectionError:
                raise ToolServerLost(await self._process.reason()) from None


async def _lines(process: CommandProcess) -> AsyncIterator[bytes]:
    """The lines of its output, without its last one if that has no end. Raises ToolServerLost for one without end."""
    parts: list[bytes] = []
    held = 0
    while block := await process.stdout.read(READ_BYTES):
        *whole, rest = block.split(b"\n")
        for line in whole:
            yield b"".join([*parts, line])
            parts, held = [], 0
        parts.append(rest)
        held += len(rest)
        if held > MAX_MESSAGE_BYTES:
            raise ToolServerLost(f"it wrote a message of more than {MAX_MESSAGE_BYTES >> 20} MiB")


def _parsed(line: bytes) -> JSONRPCMessage | None:
    """The message; None for what is none, such as a line of a log in the wrong place."""
    try:
        return jsonrpc_message_adapter.validate_json(line, by_name=False)
    except ValueError:
        return None
