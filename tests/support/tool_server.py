"""Tool servers over `mcp_server.py` for tests."""

import asyncio
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from cappella.config import CommandTool
from cappella.tools.base import RunningToolServer
from cappella.tools.mcp.server import McpServer, from_command
from support import mcp_server

QUICK_S = (0.05,)


def command(way: str = "") -> list[str]:
    """The command of the small server, which misbehaves in a way."""
    return [sys.executable, mcp_server.__file__, way]


@asynccontextmanager
async def running(
    folder: Path, way: str = "", delays_s: Sequence[float] = QUICK_S, **settings: Any
) -> AsyncGenerator[McpServer, None]:
    """The small server under supervision, once it serves or has a problem."""
    server = from_command("small", CommandTool(command=tuple(command(way)), **settings), folder, delays_s)
    await server.start()
    try:
        await until(lambda: server.problem != "it is starting")
        yield server
    finally:
        await server.stop()


async def until(holds: Callable[[], bool]) -> None:
    """Wait for a condition without a limit: the test's own ends a wait in vain."""
    while not holds():
        await asyncio.sleep(0.01)


async def serves(server: RunningToolServer) -> None:
    await until(lambda: server.problem is None)
