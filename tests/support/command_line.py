"""`cappella` as a program: forked from a process that has imported its libraries, which takes up to two seconds.

Each command is still a process of its own, with its own arguments, environment, files, terminal and signals.
"""

import atexit
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from fcntl import ioctl
from pathlib import Path
from typing import IO, Any, NoReturn

TESTS = Path(__file__).parents[1]
# Nothing that reads the environment or looks for a terminal as it is imported.
LIBRARIES = (
    "aiohttp cappella.config.load cappella.engines.supervisor cappella.gateway.app prompt_toolkit.shortcuts"
    " rich.live rich.markdown rich.progress rich.table typer uvicorn uvloop yaml"
).split()
TIMEOUT_S = 120
MAX_REQUEST_BYTES = 1 << 17
MAX_NUMBER_BYTES = 32


class Command:
    """A command that runs."""

    def __init__(self, status: socket.socket) -> None:
        self._status = status
        self.pid = int(status.recv(MAX_NUMBER_BYTES))
        self.returncode: int | None = None

    def wait(self, timeout: float | None = None) -> int:
        """The exit code, as Popen has it. Raises TimeoutError."""
        if self.returncode is None:
            self._status.settimeout(timeout)
            self.returncode = int(self._status.recv(MAX_NUMBER_BYTES))
            self._status.close()
        return self.returncode

    def poll(self) -> int | None:
        """The exit code, or None while it runs."""
        with selectors.DefaultSelector() as selector:
            if self.returncode is None:
                selector.register(self._status, selectors.EVENT_READ)
                if selector.select(0):
                    self.wait()
        return self.returncode

    def kill(self) -> None:
        """End it with SIGKILL; nothing happens if it has ended."""
        try:
            if self.poll() is None:
                # It may have ended since, and its exit code is on the way.
                with suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
            self.wait(TIMEOUT_S)
        finally:
            self._status.close()


def start(
    arguments: Sequence[str],
    files: Sequence[int],
    environment: Mapping[str, str] | None = None,
    terminal: bool = False,
    folder: str | Path = "",
) -> Command:
    """Start `cappella` with these files as its input, output and errors; with `terminal`, the first one controls it.

    It runs in `folder`, if one is named.
    """
    request = {
        "arguments": [str(each) for each in arguments],
        "environment": dict(os.environ if environment is None else environment),
        "folder": str(folder or Path.cwd()),
        "terminal": terminal,
    }
    # Each number is a packet of its own: of two that come together, `poll` sees the second.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            socket.send_fds(_parent(), [json.dumps(request).encode()], [*files, theirs.fileno()])
        return Command(ours)
    except (OSError, ValueError):
        ours.close()
        raise


def cappella(
    *arguments: str | Path, given: str | bytes = b"", folder: str | Path = "", **environment: str
) -> "subprocess.CompletedProcess[str]":
    """Run `cappella` to its end, as `subprocess.run` does; it reads `given`."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors, tempfile.TemporaryFile() as source:
        source.write(given.encode() if isinstance(given, str) else given)
        source.seek(0)
        files = [source.fileno(), out.fileno(), errors.fileno()]
        command = start([str(each) for each in arguments], files, {**os.environ, **environment}, folder=folder)
        try:
            command.wait(TIMEOUT_S)
        finally:
            command.kill()
        return subprocess.CompletedProcess(arguments, command.wait(), _text(out), _text(errors))


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


_lock = threading.Lock()
_parents: list[socket.socket] = []


def _parent() -> socket.socket:
    """The connection to the process that forks commands, which ends with this one."""
    with _lock:
        if not _parents:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            code = f"import sys; sys.path.insert(0, {str(TESTS)!r}); from support.command_line import main; main()"
            with theirs:
                process = subprocess.Popen(
                    [sys.executable, "-c", code, str(theirs.fileno())],
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
            atexit.register(process.wait)
            atexit.register(ours.close)
            _parents.append(ours)
        return _parents[0]


def main() -> None:
    """Fork a command for each request; returns in the forked process, as a command."""
    for each in LIBRARIES:
        importlib.import_module(each)
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        request = _fork_commands(control)
    if request is not None:
        _run()


def _run() -> NoReturn:
    code: object = None
    try:
        # As the console script does it: the name by which a shell knows the command decides what is completed.
        from cappella.cli.app import app

        app()
    except SystemExit as end:
        code = end.code
    sys.stdout.flush()
    sys.stderr.flush()
    # An orderly end of Python would visit every object of the libraries, and so copy their memory.
    os._exit(code if isinstance(code, int) else int(code is not None))


def _fork_commands(control: socket.socket) -> dict[str, Any] | None:
    """None once the tests have ended. In a forked process, its request."""
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.data is not None:
                    selector.unregister(key.fd)
                    _report_end(key.fd, *key.data)
                    continue
                request, files, _, _ = socket.recv_fds(control, MAX_REQUEST_BYTES, 4)
                if not request:
                    return None
                if (pid := os.fork()) == 0:
                    return _become(json.loads(request), files)
                for each in files[:3]:
                    os.close(each)
                _report(files[3], pid)
                selector.register(os.pidfd_open(pid), selectors.EVENT_READ, (pid, files[3]))


def _report_end(process: int, pid: int, status: int) -> None:
    _, code = os.waitpid(pid, 0)
    os.close(process)
    _report(status, os.waitstatus_to_exitcode(code))
    os.close(status)


def _report(status: int, number: int) -> None:
    with suppress(BrokenPipeError):
        os.write(status, f"{number}\n".encode())


def _become(request: dict[str, Any], files: Sequence[int]) -> dict[str, Any]:
    """Take over the files, environment, folder and terminal of a command."""
    for number, file in enumerate(files[:3]):
        os.dup2(file, number)
    for file in files:
        os.close(file)
    if request["terminal"]:
        os.setsid()
        ioctl(0, termios.TIOCSCTTY, 0)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    out, errors = sys.stdout, sys.stderr
    sys.stdin = open(0, encoding=sys.stdin.encoding, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", encoding=out.encoding, errors=out.errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding=errors.encoding, errors=errors.errors, closefd=False)  # noqa: SIM115
    sys.argv = ["cappella", *request["arguments"]]
    return request
