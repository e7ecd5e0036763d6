"""Engine processes and the fork server that starts them."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from signal import SIGKILL

from cappella.engines import log_rotation
from cappella.engines.process import guardian
from cappella.engines.process.logged import LoggedProcess
from cappella.engines.startup_log import StartupStages

STOP_TIMEOUT_S = guardian.GRACE_S + 5.0
"""After that the guardian itself has failed, and the gateway kills its process group."""
KILL_TIMEOUT_S = 5.0
"""A process that is stuck in the kernel gets no signal."""


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


class EngineProcess(LoggedProcess):
    """One engine server and its guardian, which holds the other end of the control socket.

    `log` is the fork server's if the engine was never forked. `exit_code` is as the guardian reports it.
    """

    stop_timeout_s = STOP_TIMEOUT_S

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stages: StartupStages,
        log: Path,
        fork_server_log: Path,
        forked_from: int | None = None,
    ) -> None:
        super().__init__(stages, log)
        self.guardian_pid: int | None = None
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


def _exit_code(line: bytes) -> int | None:
    """The exit code that the guardian reported, None if it reported none."""
    try:
        return int(line)
    except ValueError:
        return None
