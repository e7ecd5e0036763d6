"""Measures throughput, added latency and cost of one gateway process with a fixed number of runs in flight."""

import json
import time
from collections.abc import Sequence
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from cappella.bench.gateway.processes import Options, cpu_s, python, stack, watched

RAMP_S = 5.0


def measure(options: Options) -> dict[str, Any]:
    """Measure one gateway under one load: throughput, latency, cost."""
    with stack(options) as (port, gateway, engines):
        figures = _drive(port, options, gateway.pid, engines.pid)
        engines.terminate()
        assert engines.stdout
        calls = json.loads(engines.stdout.readline())
    figures["overhead_ms"] = _overhead_ms(figures.pop("runs"), calls)
    return figures


def _drive(port: int, options: Options, gateway: int, engines: int) -> dict[str, Any]:
    body = {"fusion": {"include_events": True}} if options.events else {}
    ramp_s = min(RAMP_S, 2 * options.tokens / 100) if options.runs > 1 else 0.5
    client_options = {"port": port, "body": body, "ramp_s": ramp_s}
    client_options |= {name: getattr(options, name) for name in ("runs", "tokens", "seconds")}
    with python("client", json.dumps(client_options)) as client, watched(gateway) as resident:
        assert client.stdout
        time.sleep(2 * ramp_s)
        before = {"gateway": cpu_s(gateway), "engines": cpu_s(engines), "client": cpu_s(client.pid)}
        time.sleep(options.seconds)
        after = {"gateway": cpu_s(gateway), "engines": cpu_s(engines), "client": cpu_s(client.pid)}
        figures = json.loads(client.stdout.readline())
    spent = {name: (after[name] - before[name]) / options.seconds for name in before}
    tokens_per_s = figures["tokens"] / figures["seconds"]
    return {
        **figures,
        "runs_per_s": round(tokens_per_s / options.tokens, 2),
        "cores": {name: round(share, 3) for name, share in spent.items()},
        "cpu_ms_per_run": round(1000 * spent["gateway"] * options.tokens / tokens_per_s, 2),
        "cpu_us_per_token": round(1e6 * spent["gateway"] / tokens_per_s, 1),
        "rss_mib": resident,
    }


def _overhead_ms(runs: Sequence[Sequence[int]], calls: Sequence[Any]) -> dict[str, float]:
    """Wall time of each run minus its engines': the slowest member's, and each call of the judge."""
    judged: dict[int, int] = {}
    panel: dict[int, int] = {}
    for run, model, began_ns, ended_ns in calls:
        if model == "judge":
            judged[run] = judged.get(run, 0) + ended_ns - began_ns
        else:
            panel[run] = max(panel.get(run, 0), ended_ns - began_ns)
    complete = (run for run in runs if run[0] in judged and run[0] in panel)
    overheads = sorted((ended - began - judged[run] - panel[run]) / 1e6 for run, began, ended in complete)
    if not overheads:
        return {}
    return {
        "p50": round(median(overheads), 2),
        "p99": round(overheads[int(0.99 * len(overheads))], 2),
        "max": round(overheads[-1], 2),
    }


def show(figures: dict[str, Any], options: Options) -> None:
    console = Console(width=100)
    rows = {
        "latency of a token, ms": figures["latency_ms"],
        "added between two tokens, ms": figures["jitter_ms"],
        "first byte, ms": figures["first_byte_ms"],
        "overhead of a run, ms": figures["overhead_ms"],
    }
    table = Table(
        f"{options.runs} runs x panel of {options.panel}, {options.tokens} tokens", "p50", "p95", "p99", "max"
    )
    for name, row in rows.items():
        table.add_row(name, *(str(row.get(share, "")) for share in ("p50", "p95", "p99", "max")))
    console.print(table)
    cores = ", ".join(f"{name} {share}" for name, share in figures["cores"].items())
    console.print(f"{figures['runs_per_s']} runs/s; cores: {cores}; gateway CPU per run {figures['cpu_ms_per_run']} ms, "
                  f"per forwarded token {figures['cpu_us_per_token']} us")  # fmt: skip
    console.print(f"resident MiB over time: {figures['rss_mib']}")
    console.print(f"lost or failed: {figures['troubles'] or 'nothing'}")
