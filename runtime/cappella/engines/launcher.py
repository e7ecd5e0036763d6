"""The Protocols of what starts a server: `Launcher` and `ServerProcess`; a lifecycle uses nothing else of it.

`process/process.py` forks servers on this machine. Another way to start them is a class beside it, which `backends.launcher`
returns.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from cappella.engines.startup_log import StartupLog


class ServerProcess(Protocol):
    """One launched server, with all the processes that it has started."""

    @property
    def log(self) -> Path:
        """The file with its output, or with the reason why it was never started."""
        ...

    @property
    def startup_log(self) -> StartupLog:
        """Reads the stage of its start from `log`."""
        ...

    @property
    def has_begun(self) -> bool:
        """Whether the server's own process exists or existed; before that, only the launcher works on it."""
        ...

    @property
    def running(self) -> bool: ...

    @property
    def exit_code(self) -> int | None:
        """Negative for a signal that killed the server, None while it runs or if it is unknown."""
        ...

    @property
    def process_group(self) -> int | None:
        """The process group of the server; None before it has one on this machine."""
        ...

    @property
    def starting_group(self) -> int | None:
        """The process group on this machine that works on the start; its memory shows progress."""
        ...

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended, or for `timeout_s`."""
        ...

    async def stop(self, timeout_s: float | None = None) -> None:
        """End it gently, and kill it after `timeout_s`."""
        ...

    async def kill(self) -> None:
        """Kill it, and wait a short time for its end."""
        ...

    def kill_group(self) -> None:
        """Kill it without waiting."""
        ...

    def mark_healthy(self) -> None:
        """It is healthy now: an error that it logged long before does not explain a later end."""
        ...

    async def shorten_log(self) -> None:
        """Keep the size of its log within bounds while it runs."""
        ...

    async def exit_reason(self) -> str:
        """Why it ended, in one line."""
        ...

    async def logged_error(self) -> str | None:
        """The last error in the log, None without one."""
        ...

    def log_excerpt(self) -> list[str]:
        """The lines of the log that end with that error, or else the last ones."""
        ...


class Launcher(Protocol):
    """Starts servers of one kind in one environment."""

    async def launch(self, arguments: Sequence[str], folder: Path, log: Path) -> ServerProcess:
        """Start a server in a private `folder`, without waiting until it is ready. Raises OSError."""
        ...

    async def close(self) -> None:
        """Call off the servers that have not begun; the others live on. A later launch opens it again."""
        ...
