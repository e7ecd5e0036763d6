"""The parent of one engine process: no engine outlives its gateway, however the gateway ends.

It leads a process group of its own, starts the server in it and holds the gateway's socket on standard input. End of
that socket (the gateway closed it, or was killed with -9) or SIGTERM: the server gets SIGTERM, some seconds of grace,
and then the whole group SIGKILL. The engine's private folder goes with it.
"""

import ctypes
import os
import shutil
import signal
import sys
import threading
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
    signal.signal(signal.SIGTERM, lambda *_: _stop(server))
    signal.signal(signal.SIGALRM, lambda *_: _end(folder))
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    code = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
    print(f"keeper: the engine process ended with exit code {code}", file=sys.stderr, flush=True)
    _end(folder)


def end_with_parent(parent: int, signal_number: int) -> None:
    """From now on the parent's death sends this process the signal."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal_number)
    if os.getppid() != parent:
        os._exit(1)


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(server: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(server, signal.SIGTERM)
    signal.setitimer(signal.ITIMER_REAL, GRACE_S)


def _end(folder: str) -> None:
    """End the group, this process with it: a core or a worker left behind must not keep its memory."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.dirname(folder))
    os.killpg(0, signal.SIGKILL)
