"""How much one gateway process carries, and what it adds to a run, with a fixed number of runs in flight."""

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
        told = _drive(port, options, gateway.pid, engines.pid)
        engines.terminate()
        assert engines.stdout
        calls = json.loads(engines.stdout.readline())
    told["overhead_ms"] = _overhead_ms(told.pop("runs"), calls)
    return told


def _drive(port: int, options: Options, gateway: int, engines: int) -> dict[str, Any]:
    body = {"fusion": {"include_events": True}} if options.events else {}
    ramp_s = min(RAMP_S, 2 * options.tokens / 100) if options.runs > 1 else 0.5
    asked = {"port": port, "body": body, "ramp_s": ramp_s}
    asked |= {name: getattr(options, name) for name in ("runs", "tokens", "seconds")}
    with python("client", json.dumps(asked)) as client, watched(gateway) as resident:
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
    """Wall time of each run minus its engines': the slowest member's, and each call of the judge."""
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


def show(told: dict[str, Any], options: Options) -> None:
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
