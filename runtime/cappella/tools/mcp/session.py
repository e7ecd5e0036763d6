"""A session with an MCP server: the handshake, its lists, and calls. The only module that speaks with the SDK's session."""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from mcp import ClientSession, MCPError
from mcp.client.session import IncomingMessage
from mcp.shared._stream_protocols import ReadStream, WriteStream
from mcp.shared.jsonrpc_dispatcher import JSONRPCDispatcher
from mcp.shared.message import SessionMessage
from mcp_types import CONNECTION_CLOSED, Implementation, InitializeResult, ToolListChangedNotification

from cappella.errors import ToolCallFailed, ToolServerLost
from cappella.threads import off_loop_if_large
from cappella.types import Json
from cappella.version import __version__

Streams = tuple[ReadStream[SessionMessage | Exception], WriteStream[SessionMessage]]

START_TIMEOUT_S = 30.0
"""For the handshake, and for each page of a list: some servers import for seconds."""
PING_TIMEOUT_S = 10.0
MAX_PAGES = 20
MAX_LIST_BYTES = 4 << 20
"""Of all pages of one list."""
MAX_MESSAGE_BYTES = 2 << 20
"""Small objects take a hundred times their bytes as they are parsed."""
MAX_TEXT_CHARACTERS = 300
"""Of what a server says about an error."""


class Session:
    """One session. `list_tools` and `call` give what the server says as it is: nothing of it is to be trusted."""

    def __init__(self, dispatcher: JSONRPCDispatcher[Any], greeting: InitializeResult) -> None:
        self._dispatcher = dispatcher
        self._has = greeting.capabilities
        self._asking: set[asyncio.Task[Json]] = set()

    async def list_tools(self) -> tuple[list[Any], str | None]:
        """All tools, and a note if its list goes on after the last page that is read. Raises ToolServerLost."""
        found, goes_on = await self._listed("tools") if self._has.tools else ([], False)
        return (
            found,
            f"its list of tools has more than {MAX_PAGES} pages: what follows is left out" if goes_on else None,
        )

    async def count(self) -> tuple[int, int]:
        """How many prompts and resources it has, which nobody needs: a list that it cannot give counts as empty."""
        return await self._counted("prompts"), await self._counted("resources")

    async def _counted(self, what: str) -> int:
        try:
            return len((await self._listed(what))[0]) if getattr(self._has, what) else 0
        except ToolServerLost:
            return 0

    async def call(self, tool: str, arguments: Json, timeout_s: float) -> Json:
        """The result. Raises ToolCallFailed."""
        try:
            return await self._ask("tools/call", {"name": tool, "arguments": arguments}, timeout_s)
        except TimeoutError as error:
            raise ToolCallFailed(f"{tool} took more than {timeout_s:g} s and was given up") from error
        except MCPError as error:
            if error.code == CONNECTION_CLOSED:
                raise ToolCallFailed(f"{tool} gave no result: its server ended during the call") from error
            raise ToolCallFailed(f"{tool} failed: {_shortened(error.message)}") from error

    async def ping(self) -> None:
        """Raises ToolServerLost if it does not answer."""
        await self._asked("ping", {}, PING_TIMEOUT_S)

    async def _listed(self, what: str) -> tuple[list[Any], bool]:
        found: list[Any] = []
        cursor, size_bytes = None, 0
        for _ in range(MAX_PAGES):
            page = await self._asked(f"{what}/list", {"cursor": cursor} if cursor else {}, START_TIMEOUT_S)
            items = page.get(what)
            if not isinstance(items, list):
                raise ToolServerLost(f"its list of {what} is no list")
            size_bytes += await off_loop_if_large(MAX_MESSAGE_BYTES, _size_bytes, items)
            if size_bytes > MAX_LIST_BYTES:
                raise ToolServerLost(f"its list of {what} has more than {MAX_LIST_BYTES >> 20} MiB")
            found += items
            cursor = page.get("nextCursor")
            if not isinstance(cursor, str) or not cursor:
                return found, False
        return found, True

    async def _asked(self, method: str, parameters: Json, timeout_s: float) -> Json:
        try:
            return await self._ask(method, parameters, timeout_s)
        except TimeoutError as error:
            raise ToolServerLost(f"it did not answer {method} within {timeout_s:g} s") from error
        except MCPError as error:
            raise ToolServerLost(f"it refused {method}: {_shortened(error.message)}") from error

    async def _ask(self, method: str, parameters: Json, timeout_s: float) -> Json:
        # The session would check a whole list at once: one bad tool of a server would hide all others.
        asking = asyncio.ensure_future(self._dispatcher.send_raw_request(method, parameters))
        self._asking.add(asking)
        asking.add_done_callback(self._asked_to_its_end)
        try:
            async with asyncio.timeout(timeout_s):
                # The SDK counts no time while it writes, and waits for seconds to tell the server of a cancellation.
                return await asyncio.shield(asking)
        finally:
            asking.cancel()

    def _asked_to_its_end(self, asking: asyncio.Task[Json]) -> None:
        self._asking.discard(asking)
        if not asking.cancelled():
            asking.exception()


@asynccontextmanager
async def opened(streams: Streams, tools_changed: Callable[[], None]) -> AsyncGenerator[Session, None]:
    """A session after its handshake; what the server asks of a model, a person or a file system is refused.

    Raises ToolServerLost.
    """

    async def heard(message: IncomingMessage) -> None:
        if isinstance(message, ToolListChangedNotification):
            tools_changed()

    dispatcher = JSONRPCDispatcher(*streams)
    us = Implementation(name="cappella", version=__version__)
    async with ClientSession(
        dispatcher=dispatcher, client_info=us, message_handler=heard, read_timeout_seconds=START_TIMEOUT_S
    ) as session:
        try:
            greeting = await session.initialize()
        except MCPError as error:
            raise ToolServerLost(f"it did not greet: {_shortened(error.message)}") from error
        except (RuntimeError, ValueError) as error:
            raise ToolServerLost(f"its greeting is not MCP's: {_shortened(str(error))}") from error
        yield Session(dispatcher, greeting)


def _size_bytes(items: list[Any]) -> int:
    return len(json.dumps(items))


def _shortened(text: str) -> str:
    """As one line that fits a message."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_TEXT_CHARACTERS else f"{line[:MAX_TEXT_CHARACTERS]}…"
