"""A benchmark's results: a table, JSON, and a picture."""

import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Table

from cappella.bench.figures import STAGES, Figures
from cappella.bench.picture import draw
from cappella.version import __version__


def table(all_figures: Sequence[Figures]) -> Table:
    """One line per system, load and size; times in seconds, percentiles as p50 / p95 / p99."""
    columns = "system|load|panel|tokens|runs|failed|runs/s|tokens/s|first token|whole answer|x floor|overhead ms"
    out = Table(*columns.split("|"), *STAGES, "late / early prefill", "tokens/step")
    for each in all_figures:
        overhead = (
            "" if each.overhead_s is None else f"{each.overhead_s.p50 * 1000:.1f} / {each.overhead_s.p99 * 1000:.1f}"
        )
        stages = [f"{each.stages[stage]:.2f}" if each.stages else "" for stage in STAGES]
        prefill = "" if each.stages is None else f"{each.late_prefill_tokens:.0f} / {each.early_prefill_tokens:.0f}"
        out.add_row(
            each.system,
            each.load,
            str(each.panel),
            str(each.answer_tokens or "free"),
            str(each.runs),
            str(each.failed),
            f"{each.runs_per_s:.2f}",
            f"{each.tokens_per_s:.0f}",
            _three(asdict(each.first_token_s)),
            _three(asdict(each.total_s)),
            "" if each.of_floor is None else f"{each.of_floor:.2f}",
            overhead,
            *stages,
            prefill,
            "" if each.judge_tokens_per_step is None else f"{each.judge_tokens_per_step:.2f}",
        )
    return out


def write(all_figures: Sequence[Figures], folder: Path) -> list[Path]:
    """Write bench.json and bench.svg into `folder`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    data, picture = folder / "bench.json", folder / "bench.svg"
    data.write_text(json.dumps({**circumstances(), "figures": [asdict(each) for each in all_figures]}, indent=1))
    draw(all_figures, picture)
    return [data, picture]


def circumstances() -> dict[str, Any]:
    """What belongs to every file of figures: version, command, time (UTC), Python and cores."""
    return {
        "cappella": __version__,
        "command": " ".join(["cappella", *sys.argv[1:]]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": len(os.sched_getaffinity(0)),
    }


def _three(spread: dict[str, float]) -> str:
    return " / ".join(f"{value:.2f}" for value in spread.values())
