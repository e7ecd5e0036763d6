"""Engine processes and the fork server that starts them."""

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from signal import SIGKILL

from cappella.engines import crash_reason, log_rotation
from cappella.engines.process import guardian
from cappella.engines.startup_log import StartupLog, StartupStages

STOP_TIMEOUT_S = guardian.GRACE_S + 5.0
"""After that the guardian itself has failed, and the gateway kills its process group."""
KILL_TIMEOUT_S = 5.0
"""A process that is stuck in the kernel gets no signal."""

EXCERPT_LINES = 12
HEALTHY_MARK_INTERVAL_S = 30.0
"""An error that was logged one to two intervals before the engine was last healthy is not the reason for its end."""


class ForkServer:
    """Client of the process that every engine with the environment `env` is forked from; see fork_server.py.

    The process imports `module`, whose `main()` runs a server with the given `stages`, and prints to `log`. It starts
    with the first engine, and again if it was killed.
    """

    def __init__(self, module: str, stages: StartupStages, env: Mapping[str, str], log: Path) -> None:
        self._module = module
        self._stages = stages
        self._env = env
        self._log = log
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._requests: socket.socket | None = None

    async def launch(self, arguments: Sequence[str], folder: Path, log: Path) -> "EngineProcess":
        """Start an engine in a private `folder`, which is emptied of the socket of an earlier launch. Raises OSError."""
        rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        log.parent.mkdir(parents=True, exist_ok=True)
        log_rotation.rotate(log)
        async with self._starting:
            requests = await self._running()
        ours, theirs = socket.socketpair()
        try:
            with theirs, log_rotation.create(log) as sink, suppress(BrokenPipeError, ConnectionResetError):
                request = json.dumps([str(folder), list(arguments)]).encode()
                socket.send_fds(requests, [request], [theirs.fileno(), sink.fileno()])
        except OSError:
            ours.close()
            raise
        forked_from = self._process.pid if self._process else None
        reader, writer = await asyncio.open_connection(sock=ours)
        return EngineProcess(reader, writer, self._stages, log, self._log, forked_from)

    async def close(self) -> None:
        """Kill the process; its engines live on."""
        if self._requests:
            self._requests.close()
        if self._process:
            with suppress(ProcessLookupError):
                self._process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await self._process.wait()

    async def _running(self) -> socket.socket:
        """The socket for requests to a running fork server, started if there is none."""
        if self._process and self._requests and self._process.returncode is None:
            return self._requests
        await self.close()
        self._requests, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, log_rotation.create(self._log) as sink:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cappella.engines.process.fork_server", str(os.getpid()), self._module),
                stdin=theirs.fileno(),
                stdout=sink,
                stderr=sink,
                env=self._env,
                start_new_session=True,
            )
        return self._requests


class EngineProcess:
    """One engine server and its guardian, which holds the other end of the control socket.

    `log` is the file with its output: the fork server's if the engine was never forked. `exit_code` is the server's, as
    the guardian reports it: negative for a signal that killed it, None if it is unknown.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stages: StartupStages,
        log: Path,
        fork_server_log: Path,
        forked_from: int | None = None,
    ) -> None:
        self.log = log
        self.guardian_pid: int | None = None
        self.exit_code: int | None = None
        self.startup_log = StartupLog(stages)
        # Two marks of a healthy moment and the length of the log then: errors before the older one are ignored.
        self._healthy_marks = [(time.monotonic(), 0)]
        self._fork_server_log = fork_server_log
        self._forked_from = forked_from
        self._reader = reader
        self._control = writer
        self._ended = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Read the guardian's process id, then the exit code, until the guardian has ended."""
        try:
            if line := await self._reader.readline():
                self.guardian_pid = int(line)
                self.exit_code = _exit_code(await self._reader.read())
            else:
                self.log = self._fork_server_log
        except ConnectionError:
            pass
        finally:
            self._control.close()

    @property
    def process_group(self) -> int | None:
        """The process group of the engine, which its guardian leads."""
        return self.guardian_pid

    @property
    def has_begun(self) -> bool:
        """Whether the engine was forked; else the fork server still imports the module."""
        return self.guardian_pid is not None

    @property
    def starting_group(self) -> int | None:
        """The process group that works on the start: the fork server's until the engine is forked."""
        return self.guardian_pid or self._forked_from

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Wait until it has ended, or for `timeout_s`."""
        await asyncio.wait({self._ended}, timeout=timeout_s)

    async def stop(self, timeout_s: float | None = None) -> None:
        """End the engine's whole process group: gently, and by SIGKILL after `timeout_s`."""
        with suppress(OSError):
            self._control.write_eof()
        await self.wait(STOP_TIMEOUT_S if timeout_s is None else timeout_s)
        if self.running:
            await self.kill()

    async def kill(self) -> None:
        """Send SIGKILL to the process group, and wait at most KILL_TIMEOUT_S for its end."""
        self.kill_group()
        # A guardian that is not forked yet finds the socket closed, and starts no server.
        self._control.close()
        await self.wait(KILL_TIMEOUT_S)
        self._ended.cancel()
        await self.wait()

    def kill_group(self) -> None:
        """Send SIGKILL to the process group, without waiting."""
        if self.guardian_pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.guardian_pid, SIGKILL)

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


def _exit_code(line: bytes) -> int | None:
    """The exit code that the guardian reported, None if it reported none."""
    try:
        return int(line)
    except ValueError:
        return None
