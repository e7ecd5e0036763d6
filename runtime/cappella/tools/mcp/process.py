"""The process of a tool server that Cappella starts: confined as far as the kernel allows, under its guardian."""

import asyncio
import json
import os
import shutil
import socket
import sys
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

from cappella.background import to_its_end
from cappella.config import CommandTool
from cappella.engines import log_rotation
from cappella.errors import ToolServerLost
from cappella.sealing import guard
from cappella.tools.base import Details
from cappella.tools.mcp.guardian import GRACE_S, Launch

INHERITED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER")
"""The variables that a server gets of the gateway's own; the rest may be secret."""
MAX_LOG_BYTES = 4 << 20
SHORTEN_INTERVAL_S = 2.0
STOP_TIMEOUT_S = 2 * GRACE_S + 5.0

NETWORK = "no network, in namespaces of its own"
GUARDED = "the guard in its Python code: other code reaches what this machine reaches"


class CommandProcess:
    """One launch of a server; `details` say what keeps it from the network."""

    def __init__(
        self, process: asyncio.subprocess.Process, control: socket.socket, log: Path, details: Details
    ) -> None:
        assert process.stdin
        assert process.stdout
        self.stdin, self.stdout = process.stdin, process.stdout
        self.log = log
        self.details = details
        self._process = process
        self._control = control
        self._following = asyncio.create_task(self._follow())
        self._shortening = asyncio.create_task(_keep_short(log))

    async def reason(self) -> str:
        """Wait for its end; why it ended."""
        return await asyncio.shield(self._following)

    async def stop(self) -> None:
        """End it as the protocol wants: close its input, then SIGTERM, then SIGKILL to all that is left."""
        self._shortening.cancel()
        self.stdin.close()
        await asyncio.wait({self._following}, timeout=GRACE_S)
        with suppress(OSError):
            self._control.shutdown(socket.SHUT_WR)
        await asyncio.wait({self._following}, timeout=STOP_TIMEOUT_S)
        if self._process.returncode is None:
            # The guardian itself has failed: the kernel ends the server with it.
            self._process.kill()
        await self._drained()
        await self._process.wait()
        self._following.cancel()
        await asyncio.wait({self._following, self._shortening})
        self._control.close()

    async def _drained(self) -> None:
        """Read what is left, or asyncio would not see the process's end."""
        with suppress(OSError):
            while await self.stdout.read(1 << 16):
                pass

    async def _follow(self) -> str:
        """Read the guardian's report until it has ended."""
        told = {"ended": None, "why": None}
        while line := await _line(self._control):
            told |= json.loads(line)
        if told["why"]:
            return str(told["why"])
        return f"it ended with exit code {told['ended']} ({self._last_line()})"

    def _last_line(self) -> str:
        """The last line of its log, which is most often the error that ended it."""
        with suppress(OSError), self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 2000))
            lines = file.read().decode(errors="replace").strip().splitlines()
            return lines[-1][:200] if lines else f"its log {self.log} is empty"
        return f"see its log {self.log}"


async def start(tool: CommandTool, log: Path) -> CommandProcess:
    """Start a server, and what it writes to standard error goes to `log`. Raises ToolServerLost."""
    if shutil.which(tool.command[0], path=environment(tool, guarded=False).get("PATH")) is None:
        raise ToolServerLost(f"there is no program {tool.command[0]}: install it, or write its whole path")
    # In a trial of the whole stack its own namespace has no way out, and what is tried there is seen.
    log.parent.mkdir(parents=True, exist_ok=True)
    log_rotation.rotate(log)
    is_tried = guard.RECORD in os.environ
    own_network = not tool.may_reach
    notes: tuple[str, ...] = ()
    if not is_tried:
        launch = _launch(tool, alone=True, own_network=own_network)
        process, report = await _launched(launch, log, Details(NETWORK if own_network else GUARDED))
        if process:
            return process
        notes = (f"this kernel gives it no namespaces ({report.get('impossible')}): allow user namespaces",)
    process, report = await _launched(_launch(tool, alone=False, own_network=False), log, Details(GUARDED, notes))
    if process is None:
        raise ToolServerLost(f"its guardian did not start it ({report})")
    return process


def environment(tool: CommandTool, guarded: bool) -> dict[str, str]:
    """The variables of a server: a few of the gateway's, those of the config, and the guard for Python."""
    inherited = {key: os.environ[key] for key in INHERITED if key in os.environ}
    env = {**inherited, "PYTHONUNBUFFERED": "1", **tool.env}
    if guarded:
        own = [guard.STARTUP, _package_root(), *filter(None, [env.get("PYTHONPATH")])]
        env |= {"PYTHONPATH": os.pathsep.join(own), guard.ALLOWED: ",".join(map(str, tool.may_reach))}
        env |= {key: os.environ[key] for key in (guard.RECORD, guard.OWN_SOCKETS) if key in os.environ}
    return env


def _launch(tool: CommandTool, alone: bool, own_network: bool) -> Launch:
    folder = str(tool.folder or Path.cwd())
    env = environment(tool, guarded=not own_network)
    return Launch(list(tool.command), env, folder, tool.memory_bytes, alone, own_network)


async def _launched(launch: Launch, log: Path, details: Details) -> tuple[CommandProcess | None, dict[str, object]]:
    """The process, and the guardian's first report; None if it could not confine it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    process: asyncio.subprocess.Process | None = None
    try:
        with theirs, log_rotation.create(log) as sink:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-S", "-m", "cappella.tools.mcp.guardian", str(theirs.fileno())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=sink,
                pass_fds=[theirs.fileno()],
                env={"PYTHONPATH": _package_root(), "PYTHONSAFEPATH": "1"},
                start_new_session=True,
            )
        await asyncio.get_running_loop().sock_sendall(ours, json.dumps(asdict(launch)).encode() + b"\n")
        report = json.loads(await _line(ours) or "{}")
    except BaseException:
        await to_its_end(_given_up(process, ours))
        raise
    if report.get("started"):
        return CommandProcess(process, ours, log, details), report
    await to_its_end(_given_up(process, ours))
    return None, report


async def _given_up(process: asyncio.subprocess.Process | None, control: socket.socket) -> None:
    """End a guardian that has started nothing that is used; the kernel ends its server with it."""
    control.close()
    if process:
        with suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def _line(control: socket.socket) -> bytes:
    """The guardian's next line; empty once it has ended. Its lines are short and far apart."""
    line = b""
    with suppress(OSError):
        while not line.endswith(b"\n") and (byte := await asyncio.get_running_loop().sock_recv(control, 1)):
            line += byte
    return line


async def _keep_short(log: Path) -> None:
    while True:
        await asyncio.sleep(SHORTEN_INTERVAL_S)
        with suppress(OSError):
            await asyncio.to_thread(log_rotation.shorten, log, MAX_LOG_BYTES)


def _package_root() -> str:
    return str(Path(__file__).parents[3])
