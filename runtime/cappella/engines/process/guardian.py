"""The parent of one engine process: no engine outlives its gateway, however the gateway ends.

It leads a process group of its own, starts the server in it and holds the gateway's socket on standard input. End of
that socket (the gateway closed it, or was killed with -9) or SIGTERM: the server gets SIGTERM, some seconds of grace,
and then the whole group SIGKILL. The engine's private folder goes with it. The last line on the socket is the server's
exit code.
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


def keep(folder: str) -> None:
    """Fork, and return in the server's process. The keeper's own never returns: it ends with its whole group."""
    keeper = os.getpid()
    server = os.fork()
    if server == 0:
        # The signal must be SIGTERM: vLLM then ends its own children, whom this flag does not reach.
        end_with_parent(keeper, signal.SIGTERM)
        # The line to the gateway is the keeper's alone: its end says that all is over.
        os.close(0)
        os.open(os.devnull, os.O_RDONLY)
        return
    _tell_exit(_wait_for_end(server))
    _end(folder)


def end_with_parent(parent: int, signal_number: int) -> None:
    """From now on the parent's death sends this process the signal."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def _wait_for_end(server: int) -> int | None:
    """The server's exit code; None if it outlived its grace."""
    wakeups, asked = _signals()
    stop_by: float | None = None
    while (code := _exit_code(server)) is None:
        left_s = None if stop_by is None else stop_by - time.monotonic()
        if left_s is not None and left_s <= 0:
            return None
        # Where its end has been seen, the line is always readable.
        line = [0] if stop_by is None else []
        readable, _, _ = select.select([wakeups, *line], [], [], left_s)
        if wakeups in readable:
            os.read(wakeups, 4096)
        if stop_by is None and (asked or (0 in readable and _line_ended())):
            os.kill(server, signal.SIGTERM)
            stop_by = time.monotonic() + GRACE_S
    return code


def _signals() -> tuple[int, list[int]]:
    """A file that each SIGCHLD and SIGTERM makes readable, and the list that SIGTERM writes itself into.

    The kernel may give a signal to any thread, such as one of OpenBLAS: a call that only an interruption of the main
    thread ends would then wait for ever.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    asked: list[int] = []
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    return reader, asked


def _exit_code(server: int) -> int | None:
    pid, status = os.waitpid(server, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if pid else None


def _line_ended() -> bool:
    try:
        return not os.read(0, 4096)
    except OSError:
        # A gateway that ended before it read what was written to it.
        return True


def _tell_exit(code: int | None) -> None:
    """To the log for people, and to the gateway, which has it also where a full disk takes no line."""
    said = (
        f"the engine process ended with exit code {code}" if code is not None else "the engine process outlived SIGTERM"
    )
    with suppress(OSError):
        print(f"keeper: {said}", file=sys.stderr, flush=True)
    with suppress(OSError):
        os.write(0, f"{code}\n".encode())


def _end(folder: str) -> None:
    """End the group, this process with it: a core or a worker left behind must not keep its memory."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.dirname(folder))
    os.killpg(0, signal.SIGKILL)
