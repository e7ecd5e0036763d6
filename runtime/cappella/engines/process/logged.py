"""A server whose output is a file here: what its log tells of its start and its end, and how it is ended."""

import asyncio
import time
from contextlib import suppress
from pathlib import Path
from typing import ClassVar

from cappella.engines import crash_reason, log_rotation
from cappella.engines.startup_log import StartupLog, StartupStages

EXCERPT_LINES = 12
HEALTHY_MARK_INTERVAL_S = 30.0
"""An error that was logged one to two intervals before the engine was last healthy is not the reason for its end."""


class LoggedProcess:
    """`log` is the file with its output. `exit_code` is negative for a signal that killed the server, None if it is unknown.

    A subclass sets `_ended`, the task that lasts as long as the server, and `_control`, whose end tells the server to end gently.
    """

    stop_timeout_s: ClassVar[float]
    _control: asyncio.StreamWriter
    _ended: "asyncio.Task[None]"

    def __init__(self, stages: StartupStages, log: Path) -> None:
        self.log = log
        self.exit_code: int | None = None
        self.startup_log = StartupLog(stages)
        # Two marks of a healthy moment and the length of the log then: errors before the older one are ignored.
        self._healthy_marks = [(time.monotonic(), 0)]

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended, or for `timeout_s`."""
        await asyncio.wait({self._ended}, timeout=timeout_s)

    async def stop(self, timeout_s: float | None = None) -> None:
        """End the server gently, and by `kill` after `timeout_s`, by default `stop_timeout_s`."""
        if not self.running:
            return
        # Its socket may be closed a moment before its end is known: uvloop raises RuntimeError for that.
        with suppress(OSError, RuntimeError):
            self._control.write_eof()
        await self.wait(self.stop_timeout_s if timeout_s is None else timeout_s)
        if self.running:
            await self.kill()

    async def kill(self) -> None:
        """End it at once, and wait for that for a few seconds."""
        raise NotImplementedError

    def mark_healthy(self) -> None:
        """The engine is healthy now: an error that it logged long before does not explain a later end."""
        now = time.monotonic()
        if now - self._healthy_marks[-1][0] >= HEALTHY_MARK_INTERVAL_S:
            with suppress(OSError):
                self._healthy_marks = [self._healthy_marks[-1], (now, self.log.stat().st_size)]

    async def shorten_log(self) -> None:
        """Cut the older half off a log that has become too large."""
        with suppress(OSError):
            if cut_bytes := await asyncio.to_thread(log_rotation.shorten, self.log):
                self._healthy_marks = [(at, max(0, length - cut_bytes)) for at, length in self._healthy_marks]

    async def exit_reason(self) -> str:
        """Why the process ended, in one line, from its exit code and its log."""
        return await asyncio.to_thread(self._exit_reason)

    async def logged_error(self) -> str | None:
        """The last error in the log, None without one; the process may still run."""
        error = await asyncio.to_thread(lambda: crash_reason.find_error(self._log_tail()))
        return error.reason if error else None

    def log_excerpt(self) -> list[str]:
        """The lines of the log that end with that error; without one, the last lines of the log."""
        lines = self._log_tail()
        error = crash_reason.find_error(lines)
        return list(error.lines) if error else lines[-EXCERPT_LINES:] or ["it printed nothing"]

    def _exit_reason(self) -> str:
        with suppress(OSError):
            self.startup_log.read(self.log)
        lines = self._log_tail()
        error = crash_reason.find_error(lines)
        return crash_reason.describe_exit(
            self.exit_code,
            error.reason if error else None,
            lines[-1].strip()[: crash_reason.MAX_REASON_CHARACTERS] if lines else None,
        )

    def _log_tail(self) -> list[str]:
        try:
            return crash_reason.read_tail(self.log, self._healthy_marks[0][1])
        except OSError:
            # The log may have been deleted.
            return []
