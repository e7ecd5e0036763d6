"""Imports once what every engine needs, and forks each engine from there: an import of vLLM takes 5 s of a core.

`python -m cappella.engines.process.fork_server GATEWAY MODULE` imports MODULE and then takes orders from standard input, a
socket of the process GATEWAY. For each it forks a keeper, that a server, and that calls MODULE's `main()` with the
order's arguments as its command line. When the gateway goes, this process goes at once; each keeper sees to its own.
Standard library only beside MODULE: forks inherit what is there. Importing vLLM starts no threads but those of numpy's
OpenBLAS, which ends and renews them at a fork.
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

ORDER_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Order:
    """One engine to start: its private folder, its arguments, its line to the gateway, the log for its output."""

    folder: str
    arguments: list[str]
    line: int
    log: int


def main(gateway: int, name: str) -> None:
    """Returns where a server has ended, and when the gateway wants no more of them."""
    guardian.end_with_parent(gateway, signal.SIGKILL)
    # Forked keepers are nobody's concern here, and must not stay as zombies.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What an import makes is no garbage: to look for some costs a quarter more time.
    gc.disable()
    module = _import(name)
    # And to look at it again later would copy the pages that all engines share.
    gc.freeze()
    gc.enable()
    order = _next_order()
    if order is None:
        return
    _become_keeper(order)
    guardian.keep(order.folder)
    sys.argv = [name, *order.arguments]
    _set_title(" ".join(sys.argv))
    if isinstance(module, Exception):
        raise module
    module.main()


def _import(name: str) -> ModuleType | Exception:
    """The module, or what its import raised: to be raised in the engine, whose log is where one looks."""
    try:
        return importlib.import_module(name)
    except Exception as error:  # noqa: BLE001 - whatever it is, the engine raises it
        return error


def _next_order() -> Order | None:
    """Fork for each order; returns it in the new process. None in this one when there will be no more."""
    with socket.socket(fileno=0) as orders:
        while True:
            message, (*fds,), *_ = socket.recv_fds(orders, ORDER_BYTES, 2)
            if not message:
                return None
            order = Order(*json.loads(message), *fds)
            if os.fork() == 0:
                return order
            os.close(order.line)
            os.close(order.log)


def _become_keeper(order: Order) -> None:
    """A session, standard streams and a folder for temporary files of its own."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd, copies in ((order.line, (0,)), (order.log, (1, 2))):
        for copy in copies:
            os.dup2(fd, copy)
        os.close(fd)
    os.environ["TMPDIR"], tempfile.tempdir = order.folder, None
    _set_title(f"cappella keeper of {order.folder}")
    try:
        os.write(0, f"{os.getpid()}\n".encode())
    except BrokenPipeError:
        # The gateway wants this engine no more.
        os._exit(0)


def _set_title(title: str) -> None:
    # It comes with vLLM, and costs nothing but a name in the list of processes.
    if "setproctitle" in sys.modules:
        sys.modules["setproctitle"].setproctitle(title)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
