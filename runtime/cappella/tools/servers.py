"""The tool servers of a config: made, started, called and counted, exchanged by a reload, stopped."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Self

from cappella.config import AnyTool, BuiltinTool, CommandTool, Config, Documents, UrlTool
from cappella.engines.base import Engine
from cappella.errors import ConfigError
from cappella.tools.base import STARTING, Details, RunningToolServer, Tool, ToolResult
from cappella.tools.builtin import open_builtin
from cappella.tools.documents.server import open_documents
from cappella.tools.mcp import server as mcp_server
from cappella.types import Json

POLL_S = 0.05


class CountedServer:
    """A tool server with what was made of it: `calls` so far, and how many of them `failed`. See `ToolServer`."""

    def __init__(self, server: RunningToolServer, details: Callable[[], Details] = Details) -> None:
        self._server = server
        self._details = details
        self.calls = 0
        self.failed = 0

    @property
    def name(self) -> str:
        return self._server.name

    @property
    def problem(self) -> str | None:
        return self._server.problem

    @property
    def is_starting(self) -> bool:
        """Whether its first start has not ended yet."""
        return self.problem == STARTING

    @property
    def tools(self) -> Sequence[Tool]:
        return self._server.tools

    @property
    def details(self) -> Details:
        return self._details()

    async def start(self) -> None:
        """See `RunningToolServer`."""
        await self._server.start()

    async def stop(self) -> None:
        """See `RunningToolServer`."""
        await self._server.stop()

    async def call(self, tool: str, arguments: Json) -> ToolResult:
        """See `ToolServer`."""
        self.calls += 1
        result = await self._server.call(tool, arguments)
        self.failed += result.is_error
        return result


class ToolServers(Mapping[str, CountedServer]):
    """The tool servers and documents of one config by name; `engines` embed and rank documents.

    `start` and `stop` them, or use `running`; `for_config` gives the set of another config.
    """

    def __init__(
        self, config: Config, log_dir: Path, engines: Mapping[str, Engine], before: "ToolServers | None" = None
    ) -> None:
        self._settings: Mapping[str, AnyTool | Documents] = {**config.tools, **config.documents}
        self._log_dir = log_dir
        self._engines = engines
        # All sets of a gateway share it: when it stops, so do those of earlier configs that runs still use.
        self._running: set[CountedServer] = set() if before is None else before._running
        self._servers = {name: self._kept(name, before) or self._made(name) for name in self._settings}

    def __getitem__(self, name: str) -> CountedServer:
        return self._servers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._servers)

    def __len__(self) -> int:
        return len(self._servers)

    def for_config(self, config: Config, engines: Mapping[str, Engine]) -> "ToolServers":
        """The set of another config, not started; servers whose settings and engines are the same live on in it."""
        return ToolServers(config, self._log_dir, engines, self)

    async def start(self) -> None:
        """Begin to start those that do not run, in the background."""
        for server in self._servers.values():
            if server not in self._running:
                self._running.add(server)
                await server.start()

    async def settled(self, within_s: float) -> None:
        """Returns when each serves or its first start has failed, or after so long."""
        until = time.monotonic() + within_s
        while any(server.is_starting for server in self._servers.values()) and time.monotonic() < until:
            await asyncio.sleep(POLL_S)

    async def stop(self) -> None:
        """End all that run, also those of earlier configs."""
        await self._end(set(self._running))

    async def stop_others(self) -> None:
        """End those of earlier configs."""
        await self._end(self._running - set(self._servers.values()))

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Self, None]:
        """Starts them, and stops them at the end of the context."""
        try:
            await self.start()
            yield self
        finally:
            await self.stop()

    async def _end(self, servers: set[CountedServer]) -> None:
        self._running -= servers
        await asyncio.gather(*(server.stop() for server in servers))

    def _kept(self, name: str, before: "ToolServers | None") -> CountedServer | None:
        if before is None or before._settings.get(name) != self._settings[name]:
            return None
        return before[name] if self._engines_of(name) == before._engines_of(name) else None

    def _engines_of(self, name: str) -> list[Engine | None]:
        """The engines that documents are searched with."""
        settings = self._settings[name]
        models = (settings.embedder, settings.reranker) if isinstance(settings, Documents) else ()
        return [self._engines.get(model) for model in models if model]

    def _made(self, name: str) -> CountedServer:
        match self._settings[name]:
            case CommandTool() as command:
                made = mcp_server.from_command(name, command, self._log_dir)
                return CountedServer(made, lambda: made.details)
            case UrlTool() as url:
                attached = mcp_server.from_url(name, url)
                return CountedServer(attached, lambda: attached.details)
            case BuiltinTool() as builtin:
                built = open_builtin(name, builtin)
                return CountedServer(built, lambda: built.details)
            case Documents() as documents:
                return CountedServer(open_documents(name, documents, self._engines))


def require_installed(config: Config) -> None:
    """Raises ConfigError where a config has MCP servers, and the SDK is missing."""
    for name, tool in config.tools.items():
        if isinstance(tool, CommandTool | UrlTool) and not mcp_server.is_installed():
            raise ConfigError(f"tools.{name}", "mcp is not installed", "pip install 'cappella[mcp]'")
