"""Engine processes: their command line, their sealed environment, their start, their end."""

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

from cappella.engines import crash_reason, log_files
from cappella.engines.process import guardian
from cappella.engines.vllm.startup_log import StartupLog

STOP_TIMEOUT_S = guardian.GRACE_S + 5.0
"""Then the keeper itself has failed, and its group is killed from here."""
KILL_TIMEOUT_S = 5.0
"""A process may be stuck in the kernel, where no signal reaches it."""

LAST_WORDS = 12
MARK_INTERVAL_S = 30.0
"""What an engine logged long before its end is not the reason for it."""


class ForkServer:
    """The process that every engine with the environment `env` is forked from; see fork_server.py.

    It starts with the first engine, and anew if it was killed. `log` receives what `module` prints as it is imported.
    """

    def __init__(self, module: str, env: Mapping[str, str], log: Path) -> None:
        self._module = module
        self._env = env
        self._log = log
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._orders: socket.socket | None = None

    async def fork(self, arguments: Sequence[str], folder: Path, log: Path) -> "EngineProcess":
        """Start an engine in a private `folder`, made anew: the socket of an earlier life would be in the way."""
        rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        log.parent.mkdir(parents=True, exist_ok=True)
        log_files.rotate(log)
        async with self._starting:
            orders = await self._running()
        ours, theirs = socket.socketpair()
        with theirs, log.open("wb") as sink, suppress(BrokenPipeError):
            order = json.dumps([str(folder), list(arguments)]).encode()
            socket.send_fds(orders, [order], [theirs.fileno(), sink.fileno()])
        forked_from = self._process.pid if self._process else None
        return EngineProcess(*await asyncio.open_connection(sock=ours), log, self._log, forked_from)

    async def close(self) -> None:
        """End it; engines live on."""
        if self._process and self._orders:
            self._orders.close()
            with suppress(ProcessLookupError):
                self._process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await self._process.wait()

    async def _running(self) -> socket.socket:
        """The socket for orders."""
        if self._process and self._orders and self._process.returncode is None:
            return self._orders
        await self.close()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._log.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cappella.engines.process.fork_server", str(os.getpid()), self._module),
                stdin=theirs.fileno(),
                stdout=sink,
                stderr=sink,
                env=self._env,
                start_new_session=True,
            )
        return self._orders


class EngineProcess:
    """A running engine server under its keeper, which holds the other end of the line; `log` receives all it prints.

    `exit_code` is the server's, once the keeper has told it: negative for a signal that killed it. `logged_error` says
    that `reason` found one.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: Path,
        fork_server_log: Path,
        forked_from: int | None = None,
    ) -> None:
        self.log = log
        self.keeper_pid: int | None = None
        self.exit_code: int | None = None
        self.logged_error = False
        self.startup = StartupLog()
        self._well = [(time.monotonic(), 0)]
        self._fork_server_log = fork_server_log
        self._forked_from = forked_from
        self._reader = reader
        self._line = writer
        self._ended = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Until the line ends, and the keeper with it: its process id is the first thing that it says."""
        try:
            if said := await self._reader.readline():
                self.keeper_pid = int(said)
                self.exit_code = _exit_code(await self._reader.read())
            else:
                self.log = self._fork_server_log
        except ConnectionError:
            pass
        finally:
            self._line.close()

    @property
    def starting_group(self) -> int | None:
        """The process group in which its start goes on: at first that of the fork server, which imports."""
        return self.keeper_pid or self._forked_from

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended, or for so long."""
        await asyncio.wait({self._ended}, timeout=timeout_s)

    async def stop(self, timeout_s: float | None = None) -> None:
        """End the engine and everything it started: gently, and by force after `timeout_s`."""
        with suppress(OSError):
            self._line.write_eof()
        await self.wait(STOP_TIMEOUT_S if timeout_s is None else timeout_s)
        if self.running:
            await self.kill()

    async def kill(self) -> None:
        """End the whole process group at once. One that even SIGKILL does not end within seconds is given up."""
        self.kill_group()
        # A keeper that is yet to be forked finds this end closed, and does not begin.
        self._line.close()
        await self.wait(KILL_TIMEOUT_S)
        self._ended.cancel()
        await self.wait()

    def kill_group(self) -> None:
        """Send SIGKILL, and wait for nothing."""
        if self.keeper_pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.keeper_pid, SIGKILL)

    def note_well(self) -> None:
        """It is well now: an error that it logged some time before is not the one that it dies of."""
        now = time.monotonic()
        if now - self._well[-1][0] >= MARK_INTERVAL_S:
            with suppress(OSError):
                self._well = [self._well[-1], (now, self.log.stat().st_size)]

    async def reason(self) -> str:
        """Why it ended, in one line."""
        return await asyncio.to_thread(self._reason)

    async def error(self) -> str | None:
        """The error that it logged lately, if there is one."""
        found = await asyncio.to_thread(lambda: crash_reason.find_error(self._tail()))
        return found.reason if found else None

    def last_words(self) -> list[str]:
        """The part of the log that ends with that error; without one, the end of the log."""
        log = self._tail()
        found = crash_reason.find_error(log)
        return list(found.lines) if found else log[-LAST_WORDS:] or ["it printed nothing"]

    def _reason(self) -> str:
        with suppress(OSError):
            self.startup.read(self.log)
        log = self._tail()
        error = crash_reason.find_error(log)
        self.logged_error = error is not None
        return crash_reason.tell_exit(
            self.exit_code,
            error.reason if error else None,
            log[-1].strip()[: crash_reason.MAX_REASON_CHARACTERS] if log else None,
        )

    def _tail(self) -> list[str]:
        try:
            return crash_reason.tail(self.log, self._well[0][1])
        except OSError:
            # Somebody may have taken it away.
            return []


def _exit_code(said: bytes) -> int | None:
    """As the keeper told it, if it came to that."""
    try:
        return int(said)
    except ValueError:
        return None
