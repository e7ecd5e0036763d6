"""How much one gateway process carries, and what it adds: engines, gateway and client as processes of their own."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
WATCH_EVERY_S = 5.0


Process = subprocess.Popen[str]


def measure(options: Any) -> dict[str, Any]:
    """One load on one gateway: what came through, how late, at what cost."""
    with stack(options) as (port, gateway, engines):
        told = _drive(port, options, gateway.pid, engines.pid)
        engines.terminate()
        assert engines.stdout
        calls = json.loads(engines.stdout.readline())
    told["overhead_ms"] = _overhead_ms(told.pop("runs"), calls)
    return told


@contextmanager
def stack(options: Any) -> Iterator[tuple[int, Process, Process]]:
    """A gateway's port, the gateway, and the engines under it."""
    models = [f"member{number}" for number in range(options.panel)] + ["judge"]
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        at = [folder, ",".join(models)]
        with python("load.engines", *at, str(options.tokens)) as engines:
            assert engines.stdout
            assert engines.stdout.readline() == "ready\n"
            with python("load.gateway", *at, options.analysis, str(options.sequences)) as gateway:
                assert gateway.stdout
                yield int(gateway.stdout.readline()), gateway, engines


def _drive(port: int, options: Any, gateway: int, engines: int) -> dict[str, Any]:
    body = {"fusion": {"include_events": True}} if options.events else {}
    ramp_s = min(5.0, 2 * options.tokens / 100) if options.runs > 1 else 0.5
    asked = {"port": port, "body": body, "ramp_s": ramp_s}
    asked |= {name: getattr(options, name) for name in ("runs", "tokens", "seconds")}
    with python("load.client", json.dumps(asked)) as client, watched(gateway) as resident:
        assert client.stdout
        time.sleep(2 * ramp_s)
        before = {"gateway": cpu_s(gateway), "engines": cpu_s(engines), "client": cpu_s(client.pid)}
        time.sleep(options.seconds)
        after = {"gateway": cpu_s(gateway), "engines": cpu_s(engines), "client": cpu_s(client.pid)}
        told = json.loads(client.stdout.readline())
    spent = {name: (after[name] - before[name]) / options.seconds for name in before}
    tokens_per_s = told["tokens"] / told["seconds"]
    return {
        **told,
        "runs_per_s": round(tokens_per_s / options.tokens, 2),
        "cores": {name: round(share, 3) for name, share in spent.items()},
        "cpu_ms_per_run": round(1000 * spent["gateway"] * options.tokens / tokens_per_s, 2),
        "cpu_us_per_token": round(1e6 * spent["gateway"] / tokens_per_s, 1),
        "rss_mib": resident,
    }


def _overhead_ms(runs: Sequence[Sequence[int]], calls: Sequence[Any]) -> dict[str, float]:
    """Wall time of each run without the engines' own: the slowest of the panel, then each call of the judge."""
    judged: dict[int, int] = {}
    panel: dict[int, int] = {}
    for run, model, began_ns, ended_ns in calls:
        if model == "judge":
            judged[run] = judged.get(run, 0) + ended_ns - began_ns
        else:
            panel[run] = max(panel.get(run, 0), ended_ns - began_ns)
    whole = (run for run in runs if run[0] in judged and run[0] in panel)
    each = sorted((ended - began - judged[run] - panel[run]) / 1e6 for run, began, ended in whole)
    if not each:
        return {}
    return {"p50": round(median(each), 2), "p99": round(each[int(0.99 * len(each))], 2), "max": round(each[-1], 2)}


@contextmanager
def python(module: str, *arguments: str) -> Iterator[Process]:
    """A process of this Python, ended with the context."""
    paths = os.pathsep.join(path for path in sys.path if path)
    environment = {**os.environ, "PYTHONPATH": paths}
    command = [sys.executable, "-m", module, *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        try:
            yield process
        finally:
            process.terminate()


@contextmanager
def watched(pid: int) -> Iterator[list[float]]:
    """The process's resident MiB, noted every few seconds."""
    noted: list[float] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(WATCH_EVERY_S):
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
            noted.append(round(pages * PAGE_BYTES / 2**20, 1))

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


def show(told: dict[str, Any], options: Any) -> None:
    console = Console(width=100)
    rows = {
        "a token's way through, ms": told["latency_ms"],
        "added between two tokens, ms": told["jitter_ms"],
        "first byte, ms": told["first_byte_ms"],
        "overhead of a run, ms": told["overhead_ms"],
    }
    table = Table(
        f"{options.runs} runs x panel of {options.panel}, {options.tokens} tokens", "p50", "p95", "p99", "max"
    )
    for name, row in rows.items():
        table.add_row(name, *(str(row.get(share, "")) for share in ("p50", "p95", "p99", "max")))
    console.print(table)
    cores = ", ".join(f"{name} {share}" for name, share in told["cores"].items())
    console.print(f"{told['runs_per_s']} runs/s; cores: {cores}; gateway CPU per run {told['cpu_ms_per_run']} ms, "
                  f"per forwarded token {told['cpu_us_per_token']} us")  # fmt: skip
    console.print(f"resident MiB over time: {told['rss_mib']}")
    console.print(f"lost or failed: {told['troubles'] or 'nothing'}")
