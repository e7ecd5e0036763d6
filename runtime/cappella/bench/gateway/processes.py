"""The processes of a benchmark of the gateway: scripted engines, a gateway over them, a client."""

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WATCH_EVERY_S = 5.0

Process = subprocess.Popen[str]


@dataclass(frozen=True, slots=True)
class Options:
    """`runs` in flight at once over a panel of `panel` members, with answers of `tokens` at 100 a second.

    With `overload`, requests come that many times as fast as the gateway can answer. Each engine runs `sequences` requests at once.
    """

    runs: int = 400
    panel: int = 3
    tokens: int = 100
    seconds: float = 60
    analysis: str = "off"
    events: bool = False
    sequences: int = 4096
    overload: float | None = None


@contextmanager
def stack(options: Options) -> Iterator[tuple[int, Process, Process]]:
    """Start engines and a gateway over them; yields the gateway's port and both processes."""
    models = [f"member{number}" for number in range(options.panel)] + ["judge"]
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        at = [folder, ",".join(models)]
        with python("engines", *at, str(options.tokens)) as engines:
            assert engines.stdout
            assert engines.stdout.readline() == "ready\n"
            with python("server", *at, options.analysis, str(options.sequences)) as gateway:
                assert gateway.stdout
                yield int(gateway.stdout.readline()), gateway, engines


@contextmanager
def python(module: str, *arguments: str) -> Iterator[Process]:
    """A process that runs a module beside this one, ended with the context."""
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", f"cappella.bench.gateway.{module}", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """The process's resident MiB, sampled every few seconds."""
    noted: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            noted.append(round(pages * PAGE_BYTES / 2**20, 1))
            ended.wait(WATCH_EVERY_S)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield noted
    finally:
        ended.set()
        thread.join()


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S
