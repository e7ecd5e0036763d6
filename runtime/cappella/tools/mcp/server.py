"""One MCP server under supervision: started or connected to, listed, called within limits, and begun again after an end."""

import asyncio
import importlib.util
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cappella.background import background, to_its_end
from cappella.config import CommandTool, UrlTool
from cappella.errors import ToolCallFailed, ToolServerLost
from cappella.tools.base import STOPPED, Details, Offer, Tool, ToolResult
from cappella.tools.mcp import listing, process, replies
from cappella.tools.mcp.sdk_log import leave_out_texts
from cappella.types import Json

if TYPE_CHECKING:
    from cappella.tools.mcp.session import Session, Streams

DELAYS_S = (0.5, 2.0, 8.0, 30.0)
STABLE_S = 120.0
"""A server that has served so long begins again at the shortest delay."""
PING_INTERVAL_S = 30.0
COUNT_TIMEOUT_S = 5.0
RELIST_DELAY_S = 1.0
"""Between two readings of the tools of a server that says all the time that they have changed."""

Connect = Callable[[], AbstractAsyncContextManager["tuple[Streams, Details]"]]
"""Opens one connection: its streams, and what confines the server."""


def is_installed() -> bool:
    """Whether the SDK is, which the extra `mcp` brings."""
    return importlib.util.find_spec("mcp") is not None


class McpServer(Offer):
    """See `RunningToolServer`. `delays_s` are the waits before each new start; the last one is repeated."""

    def __init__(self, name: str, config: CommandTool | UrlTool, connect: Connect, delays_s: Sequence[float]) -> None:
        super().__init__(name)
        self._config = config
        self._connect = connect
        self._delays_s = delays_s
        self._confinement = Details("nothing yet")
        self._notes: Sequence[str] = ()
        self._counts, self._is_counted = (0, 0), False
        self._tools: Mapping[str, listing.ListedTool] = {}
        self._session: Session | None = None
        self._supervision: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._is_changed = self._was_called = False

    def _offered(self) -> Sequence[Tool]:
        return [each.tool for each in self._tools.values()]

    @property
    def details(self) -> Details:
        """What an operator is told of it."""
        notes = [*self._confinement.notes, *self._notes]
        return Details(self._confinement.confined_by, notes, *self._counts, self._is_counted)

    async def start(self) -> None:
        """See `RunningToolServer`."""
        leave_out_texts()
        self._supervision = asyncio.create_task(self._supervise())

    async def stop(self) -> None:
        """See `RunningToolServer`."""
        if self._supervision:
            self._supervision.cancel()
            await asyncio.wait({self._supervision})
        self._problem = STOPPED

    async def call(self, tool: str, arguments: Json) -> ToolResult:
        """See `ToolServer`."""
        if self._session is None or self._problem is not None:
            # The problem may have secrets of the server's log: operators read it, and neither models nor users.
            return ToolResult(f"{self._name} is not available now", is_error=True)
        listed = self._tools.get(tool)
        if listed is None:
            return ToolResult(f"{self._name} has no tool {tool}; it has {', '.join(self._tools)}", is_error=True)
        if mistakes := listed.mistakes(arguments):
            return ToolResult(f"These arguments do not fit the schema of {tool}: {mistakes}", is_error=True)
        self._was_called = True
        try:
            reply = await self._session.call(listed.own_name, arguments, self._config.timeout_s)
            return replies.read(self._name, reply, self._config.max_result_bytes)
        except ToolCallFailed as error:
            # It may hang: its supervision asks it for a sign of life.
            self._look.set()
            return ToolResult(str(error), is_error=True)

    async def _supervise(self) -> None:
        """Begin again after each end, and wait longer each time that it did not last."""
        ends = 0
        while True:
            began = time.monotonic()
            try:
                await self._serve()
            except Exception as error:  # noqa: BLE001 - whatever it was, the next start may do better
                if (task := asyncio.current_task()) and task.cancelling():
                    # A group of errors has taken the place of the cancellation.
                    return
                reason = _reason(error)
            finally:
                self._session, self._tools = None, {}
            ends = 0 if time.monotonic() - began > STABLE_S else ends
            delay_s = self._delays_s[min(ends, len(self._delays_s) - 1)]
            ends += 1
            self._problem = f"{reason}; it is started again after {delay_s:g} s"
            # Once it was called, its last words may be of what was asked: those who operate it read them, no log has them.
            logged = "it was lost; its own log may say why" if self._was_called else self._problem
            logging.getLogger(__name__).warning("tool server %s: %s", self._name, logged)
            await asyncio.sleep(delay_s)

    async def _serve(self) -> None:
        """One connection, until it is lost. Raises ToolServerLost, and whatever its transport does."""
        self._was_called = False
        # Imported for the first server: it takes a second of a core.
        session = await asyncio.to_thread(importlib.import_module, "cappella.tools.mcp.session")
        async with (
            self._connect() as (streams, self._confinement),
            session.opened(streams, self._tools_changed) as opened,
        ):
            await self._list(opened)
            self._session, self._problem = opened, None
            async with background(self._count(opened)):
                await self._watch(opened)

    async def _list(self, session: "Session") -> None:
        """Runs read the tools when they begin, so that these change between runs alone."""
        listed, more = await session.list_tools()
        self._tools, self._notes = await asyncio.to_thread(listing.read, self._name, listed, more)

    async def _count(self, session: "Session") -> None:
        """Nobody needs them to call its tools."""
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(COUNT_TIMEOUT_S):
                    self._counts = await session.count()
        finally:
            self._is_counted = True

    async def _watch(self, session: "Session") -> None:
        """Read the tools again when they change, and raise ToolServerLost when it gives no sign of life."""
        while True:
            try:
                async with asyncio.timeout(PING_INTERVAL_S):
                    await self._look.wait()
            except TimeoutError:
                pass
            self._look.clear()
            if self._is_changed:
                await asyncio.sleep(RELIST_DELAY_S)
                self._is_changed = False
                await self._list(session)
            else:
                await session.ping()

    def _tools_changed(self) -> None:
        self._is_changed = True
        self._look.set()


def from_command(name: str, config: CommandTool, log_dir: Path, delays_s: Sequence[float] = DELAYS_S) -> McpServer:
    """A server that is started here; what it writes to standard error is in the log folder."""

    @asynccontextmanager
    async def connect() -> AsyncGenerator[tuple["Streams", Details], None]:
        stdio = importlib.import_module("cappella.tools.mcp.stdio")
        started = await process.start(config, log_dir / f"{LOG_PREFIX}{name}.log")
        try:
            async with stdio.streams(started) as streams:
                yield streams, started.details
        finally:
            await to_its_end(started.stop())

    return McpServer(name, config, connect, delays_s)


LOG_PREFIX = "_tool-"
"""No engine's log begins so: a model's name begins with a letter or a digit."""


def from_url(name: str, config: UrlTool, delays_s: Sequence[float] = DELAYS_S) -> McpServer:
    """A server that runs already."""

    @asynccontextmanager
    async def connect() -> AsyncGenerator[tuple["Streams", Details], None]:
        http = importlib.import_module("cappella.tools.mcp.http")
        async with http.streams(config) as streams:
            yield streams, Details(f"nothing: it runs elsewhere, at {config.url}")

    return McpServer(name, config, connect, delays_s)


def _reason(error: BaseException) -> str:
    """The cause inside groups of errors, as a sentence's end."""
    while isinstance(error, BaseExceptionGroup):
        lost = [each for each in error.exceptions if isinstance(each, ToolServerLost)]
        error = (lost or error.exceptions)[0]
    return str(error) or type(error).__name__
