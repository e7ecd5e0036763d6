"""Measures the gateway above its capacity: it should answer as many runs as at it, and reject the rest at once."""

import json
from typing import Any

from rich.console import Console
from rich.table import Table

from cappella.bench.gateway.processes import Options, cpu_s, python, stack, watched


def measure(options: Options) -> dict[str, Any]:
    """Measure the capacity in a closed loop, then open loops at that rate and at `options.overload` times it."""
    rounds: dict[str, Any] = {}
    with stack(options) as (port, gateway, engines):
        slots = options.sequences - round(options.sequences / 8)
        client_options = {"port": port, "body": {}, "ramp_s": 2.0, "tokens": options.tokens}
        with python("client", json.dumps({**client_options, "runs": slots, "seconds": options.seconds / 4})) as client:
            assert client.stdout
            closed = json.loads(client.stdout.readline())
        capacity = closed["tokens"] / closed["seconds"] / options.tokens
        assert options.overload
        for times in (1.0, options.overload):
            client_options = {
                "port": port,
                "tokens": options.tokens,
                "rate": times * capacity,
                "seconds": options.seconds,
            }
            rounds[f"{times:g}x"] = _round(client_options, gateway.pid)
        engines.terminate()
        assert engines.stdout
        engines.stdout.read()
    return {"sequences": options.sequences, "runs_at_once": slots, "capacity_per_s": round(capacity, 2), **rounds}


def _round(options: dict[str, Any], gateway: int) -> dict[str, Any]:
    before = cpu_s(gateway)
    with python("open_loop", json.dumps(options)) as client, watched(gateway) as resident:
        assert client.stdout
        figures: dict[str, Any] = json.loads(client.stdout.readline())
    spent = cpu_s(gateway) - before
    return {
        "asked_per_s": round(options["rate"], 2),
        "refused_share": round(figures["refused"] / figures["asked"], 4),
        **figures,
        "gateway_cores": round(spent / figures["seconds"], 3),
        "rss_mib": {"start": resident[0], "middle": resident[len(resident) // 2], "end": resident[-1]},
    }


def show(figures: dict[str, Any], options: Options) -> None:
    console = Console(width=110)
    table = Table(
        "", "requests/s", "answered/s", "rejected", "rejection, ms p50 / p99", "answer, s p50 / p99", "cores", "MiB"
    )
    for name in ("1x", f"{options.overload:g}x"):
        row = figures[name]
        refused, answered = row["refused_ms"], row["answered_ms"]
        table.add_row(
            name, str(row["asked_per_s"]), str(row["answered_per_s"]), f"{row['refused_share']:.1%}",
            f"{refused.get('p50', '-')} / {refused.get('p99', '-')}",
            f"{answered['p50'] / 1000:.2f} / {answered['p99'] / 1000:.2f}",
            str(row["gateway_cores"]), " ".join(str(mib) for mib in row["rss_mib"].values()),
        )  # fmt: skip
    console.print(
        f"{figures['runs_at_once']} runs at once; in closed loop {figures['capacity_per_s']} answers a second"
    )
    console.print(table)
