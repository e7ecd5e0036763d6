"""The parent of one engine process: no engine outlives its gateway, however the gateway ends.

`python -m cappella.engines.keeper FOLDER COMMAND...` leads a process group of its own, starts COMMAND in it and holds
the gateway's pipe on standard input. End of that pipe (the gateway closed it, or was killed with -9) or SIGTERM: the
command gets SIGTERM, some seconds of grace, and then the whole group SIGKILL. FOLDER, the engine's private one, goes
with it. Standard library only, to start fast.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import suppress

GRACE_S = 10.0
PR_SET_PDEATHSIG = 1


def keep(folder: str, command: list[str]) -> None:
    """Run the command until it ends or the gateway goes; never returns, since it ends its own group."""
    # preexec_fn is unsafe beside threads, and here there are none yet.
    server = subprocess.Popen(command, stdin=subprocess.DEVNULL, preexec_fn=_die_with_keeper)  # noqa: PLW1509
    signal.signal(signal.SIGTERM, lambda *_: _stop(server))
    signal.signal(signal.SIGALRM, lambda *_: _end(folder))
    threading.Thread(target=_stop_at_end_of_input, daemon=True).start()
    code = server.wait()
    print(f"keeper: the engine process ended with exit code {code}", file=sys.stderr, flush=True)
    _end(folder)


def _die_with_keeper() -> None:
    # The signal must be SIGTERM: vLLM then ends its own children, whom this flag does not reach.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _stop_at_end_of_input() -> None:
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _stop(server: "subprocess.Popen[bytes]") -> None:
    server.terminate()
    signal.setitimer(signal.ITIMER_REAL, GRACE_S)


def _end(folder: str) -> None:
    """End the group, this process with it: a core or a worker left behind must not keep its memory."""
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        os.rmdir(os.path.dirname(folder))
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    keep(sys.argv[1], sys.argv[2:])
