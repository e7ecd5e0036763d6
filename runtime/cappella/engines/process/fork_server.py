"""The fork server: imports the server module once and forks each engine, since an import of vLLM takes 5 s of a core.

`python -m cappella.engines.process.fork_server GATEWAY MODULE` imports MODULE and reads requests from standard input, a
socket of the process GATEWAY. For each request it forks a guardian, which forks a server, which calls MODULE's `main()`
with the request's arguments as its command line. When the gateway ends, this process ends at once; each guardian ends
its own server. Beside MODULE it uses the standard library only, since forks inherit every import. Importing vLLM starts
no threads except those of numpy's OpenBLAS, which stops and restarts them at a fork.
"""

import gc
import importlib
import json
import os
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from types import ModuleType

from cappella.engines.process import guardian

MAX_REQUEST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """One engine to start; `control` (a socket to the gateway) and `log` (for its output) are file descriptors."""

    folder: str
    arguments: list[str]
    control: int
    log: int


def main(gateway: int, name: str) -> None:
    """Serve requests until the gateway closes the socket; each forked process returns when its server has ended."""
    guardian.end_with_parent(gateway, signal.SIGKILL)
    # Forked guardians must not stay as zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # An import makes no garbage: collecting would cost a quarter more time.
    gc.disable()
    module = _import(name)
    # A later collection would copy the pages that all engines share.
    gc.freeze()
    gc.enable()
    request = _next_request()
    if request is None:
        return
    _become_guardian(request)
    guardian.fork_server_process(request.folder)
    sys.argv = [name, *request.arguments]
    _set_title(" ".join(sys.argv))
    if isinstance(module, Exception):
        raise module
    module.main()


def _import(name: str) -> ModuleType | Exception:
    """The module, or the exception of its import, which each engine raises so that its log shows it."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - each engine raises it
        return error


def _next_request() -> ForkRequest | None:
    """Fork for each request, and return it in the new process; None in this one when the gateway has closed the socket."""
    with socket.socket(fileno=0) as requests:
        while True:
            message, (*fds,), *_ = socket.recv_fds(requests, MAX_REQUEST_BYTES, 2)
            if not message:
                return None
            request = ForkRequest(*json.loads(message), *fds)
            if os.fork() == 0:
                return request
            os.close(request.control)
            os.close(request.log)


def _become_guardian(request: ForkRequest) -> None:
    """Get a session, standard streams and a temporary folder of its own, and send the process id to the gateway."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd, copies in ((request.control, (0,)), (request.log, (1, 2))):
        for copy in copies:
            os.dup2(fd, copy)
        os.close(fd)
    os.environ["TMPDIR"], tempfile.tempdir = request.folder, None
    _set_title(f"cappella guardian of {request.folder}")
    try:
        os.write(0, f"{os.getpid()}\n".encode())
    except BrokenPipeError:
        # The gateway no longer wants this engine.
        os._exit(0)


def _set_title(title: str) -> None:
    # setproctitle comes with vLLM; without it only the name in the process list is missing.
    if "setproctitle" in sys.modules:
        sys.modules["setproctitle"].setproctitle(title)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
