"""The guardian: parent process of one engine, which ends the engine whenever the gateway ends, also by kill -9.

It leads a process group of its own, starts the server in it and has the control socket to the gateway on standard
input. When that socket ends, or on SIGTERM, the server gets SIGTERM and GRACE_S seconds, and then the whole group gets
SIGKILL. The engine's private folder is removed, too. The last line on the socket is the server's exit code.
"""

import ctypes
import os
import select
import shutil
import signal
import sys
import time
from contextlib import suppress

GRACE_S = 10.0
PR_SET_PDEATHSIG = 1


def fork_server_process(folder: str) -> None:
    """Fork, and return in the server's process only. The guardian never returns: it ends with its process group."""
    guardian = os.getpid()
    server = os.fork()
    if server == 0:
        # The signal must be SIGTERM: vLLM then ends its own children, to which this flag does not apply.
        end_with_parent(guardian, signal.SIGTERM)
        # Only the guardian holds the control socket, so that its end tells the gateway that all processes have ended.
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        return
    _report_exit(_wait_for_end(server))
    _remove_and_kill(folder)


def end_with_parent(parent: int, signal_number: int) -> None:
    """Let the kernel send this process the signal when its parent ends."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def _wait_for_end(server: int) -> int | None:
    """The server's exit code; None if it still runs GRACE_S after SIGTERM."""
    wakeups, stop_requests = _signals()
    stop_by: float | None = None
    while (code := _exit_code(server)) is None:
        left_s = None if stop_by is None else stop_by - time.monotonic()
        if left_s is not None and left_s <= 0:
            return None
        # Once the control socket has ended, it is always readable.
        control = [0] if stop_by is None else []
        readable, _, _ = select.select([wakeups, *control], [], [], left_s)
        if wakeups in readable:
            os.read(wakeups, 4096)
        if stop_by is None and (stop_requests or (0 in readable and _control_ended())):
            os.kill(server, signal.SIGTERM)
            stop_by = time.monotonic() + GRACE_S
    return code


def _signals() -> tuple[int, list[int]]:
    """A file that SIGCHLD and SIGTERM make readable, and a list to which each SIGTERM is appended.

    The kernel may deliver a signal to any thread, such as one of OpenBLAS: a system call of the main thread would not be
    interrupted.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    stop_requests: list[int] = []
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: stop_requests.append(number))
    return reader, stop_requests


def _exit_code(server: int) -> int | None:
    pid, status = os.waitpid(server, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _control_ended() -> bool:
    try:
        return not os.read(0, 4096)
    except OSError:
        # The gateway ended with unread data on the socket.
        return True


def _report_exit(code: int | None) -> None:
    """Write it to the log, and to the gateway, which learns it even if a full disk takes no log."""
    outcome = "survived SIGTERM" if code is None else f"ended with exit code {code}"
    with suppress(OSError):
        print(f"guardian: the engine process {outcome}", file=sys.stderr, flush=True)
    with suppress(OSError):
        os.write(0, f"{code}\n".encode())


def _remove_and_kill(folder: str) -> None:
    """Kill the process group, this process included, so that no core or worker keeps memory."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.dirname(folder))
    os.killpg(0, signal.SIGKILL)
