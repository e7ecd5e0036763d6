"""The guardian of a tool server: confines the server's command, and ends it and all that it started with the gateway.

`python -m cappella.tools.mcp.guardian FD`: FD is a socket to the gateway, from which the first line is a `Launch` as JSON. Standard
input and output are the server's. When the socket ends, also as the gateway is killed, no process of the server is left. It
writes lines of JSON: `{"started": true}` or `{"impossible": why}`, then `{"ended": exit code, "why": the limit that it met}`.
"""

import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cappella.engines.process.guardian import PR_SET_PDEATHSIG
from cappella.sealing import namespace

GRACE_S = 2.0
CHECK_S = 0.5
MAX_PROCESSES = 256
MAX_LAUNCH_BYTES = 4 << 20
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS, PR_CAPBSET_DROP = 36, 38, 24
CAPABILITIES = 64
NOT_STARTED = 127
PAGE_BYTES = resource.getpagesize()

_libc = ctypes.CDLL(None)


@dataclass(frozen=True, slots=True)
class Launch:
    """One server to start. `alone`: in namespaces of its own; `own_network`: it reaches no address at all."""

    command: list[str]
    environment: dict[str, str]
    folder: str
    memory_bytes: int
    alone: bool
    own_network: bool


def main(control: socket.socket) -> None:
    """Start the server, wait for its end or the gateway's, and leave no process of it."""
    with control.makefile("rb") as lines:
        launch = Launch(**json.loads(lines.readline(MAX_LAUNCH_BYTES)))
    # What the server leaves behind becomes a child of this process, and not of the system's first one.
    _libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if launch.alone:
        try:
            namespace.enter_alone(launch.own_network)
        except OSError as error:
            _tell(control, {"impossible": str(error)})
            return
    first = _start(launch, control)
    _tell(control, {"started": True})
    try:
        why = _watch(first, control, launch.memory_bytes)
    finally:
        _kill_all()
    _tell(control, {"ended": _exit_code(first), "why": why})


def _start(launch: Launch, control: socket.socket) -> int:
    """Fork the server, with a first process of its namespace if it has one; returns the process id of the fork."""
    child = os.fork()
    if child:
        _let_go_of_pipes()
        return child
    # The kernel ends it with this guardian, and all processes of its namespace with it.
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    control.close()
    if not launch.alone:
        _execute(launch)
    with suppress(OSError):
        namespace.show_own_processes()
    server = os.fork()
    if server == 0:
        _execute(launch)
    _let_go_of_pipes()
    while True:
        pid, status = os.wait()
        if pid == server:
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _let_go_of_pipes() -> None:
    """Only the server holds its standard input and output, so that each end sees when the other is closed."""
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1):
        os.dup2(null, fd)


def _execute(launch: Launch) -> None:
    """Become the server, without rights beyond those of an ordinary program."""
    for capability in range(CAPABILITIES):
        _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)
    _libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Not the address space: some runtimes reserve much more of it than they use.
    resource.setrlimit(resource.RLIMIT_DATA, (launch.memory_bytes, launch.memory_bytes))
    try:
        os.chdir(launch.folder)
        os.execvpe(launch.command[0], launch.command, launch.environment)
    except OSError as error:
        print(f"cannot start {launch.command[0]}: {error.strerror}", file=sys.stderr, flush=True)
    os._exit(NOT_STARTED)


def _watch(first: int, control: socket.socket, memory_bytes: int) -> str | None:
    """Until the server or the socket ends, or a limit is met, which is returned."""
    ended = _wakes_on_child_end()
    stop_by: float | None = None
    while True:
        listening: list[int | socket.socket] = [ended] if stop_by else [ended, control]
        readable, _, _ = select.select(listening, [], [], CHECK_S)
        if ended in readable:
            os.read(ended, 4096)
        if _has_ended(first) or (stop_by and time.monotonic() > stop_by):
            return None
        if control in readable:
            # What it says does not matter: only its end is expected.
            stop_by = time.monotonic() + GRACE_S
            _signal_all(signal.SIGTERM)
        if why := _met_limit(memory_bytes):
            return why


def _wakes_on_child_end() -> int:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return reader


def _has_ended(first: int) -> bool:
    """Whether the server has ended; its exit code can still be read."""
    return os.waitid(os.P_PID, first, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _exit_code(first: int) -> int:
    with suppress(ChildProcessError):
        return os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    return -signal.SIGKILL


def _met_limit(memory_bytes: int) -> str | None:
    pids = list(_descendants(os.getpid()))
    if len(pids) > MAX_PROCESSES:
        return f"it started more than {MAX_PROCESSES} processes"
    # Pages that processes share are counted once for each, so only what is above the limit is counted with care.
    if sum(map(_resident_bytes, pids)) > memory_bytes and sum(map(_proportional_bytes, pids)) > memory_bytes:
        return f"it used more than {memory_bytes >> 20} MiB of memory (memory_bytes)"
    return None


def _descendants(pid: int) -> Iterator[int]:
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        # Processes come and go.
        with suppress(OSError):
            for child in map(int, children.read_text().split()):
                yield child
                yield from _descendants(child)


def _resident_bytes(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES
    return 0


def _proportional_bytes(pid: int) -> int:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    return _resident_bytes(pid)


def _signal_all(number: int) -> bool:
    """Signal every process of the server; returns whether there was any."""
    pids = list(_descendants(os.getpid()))
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)
    return bool(pids)


def _kill_all() -> None:
    """Until none is left: one that forks meanwhile is met in the next round."""
    while any(_is_alive(pid) for pid in _descendants(os.getpid())):
        _signal_all(signal.SIGKILL)
        time.sleep(0.01)


def _is_alive(pid: int) -> bool:
    """Whether it is there and no zombie, which nobody has asked for its exit code."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    return False


def _tell(control: socket.socket, line: dict[str, object]) -> None:
    # The gateway may have ended.
    with suppress(OSError):
        control.sendall(json.dumps(line).encode() + b"\n")


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
