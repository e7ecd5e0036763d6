"""`cappella bench batch`: reads the options, prints a table, writes the file."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import aiohttp
from rich.console import Console
from rich.table import Table

from cappella.bench import report, workload
from cappella.bench.batches import BatchPlan, Way, measure
from cappella.bench.systems import Sizes
from cappella.config import load
from cappella.engines.supervisor import default_log_dir
from cappella.errors import CappellaError

console = Console(stderr=True, highlight=False)


@dataclass(frozen=True, slots=True)
class Options:
    """Of the command line."""

    config: Path
    url: str | None
    ensemble: str
    rows: int
    at_once: int
    answer_tokens: int | None
    prompt_words: int
    prompts: Path | None


def bench(options: Options, out: Path | None) -> None:
    """Measure and print. Raises CappellaError."""
    try:
        online, batch = asyncio.run(measure(_plan(options), default_log_dir("bench"), _log))
    except aiohttp.ClientError as error:
        raise CappellaError(f"The server ended or cannot be reached: {error}") from error
    Console(highlight=False, width=None if console.is_terminal else 200).print(table(online, batch))
    for way in (online, batch):
        for text in way.errors:
            console.print(f"[red]{way.name}:[/red] {text}", soft_wrap=True)
    if out is not None:
        out.write_text(json.dumps(_figures(options, online, batch), indent=1) + "\n")
        console.print(f"Written: {out}")


def table(online: Way, batch: Way) -> Table:
    """One line for each way; below, one for each engine in it."""
    out = Table(*"way|rows|ends|seconds|rows/s|ratio|an engine busy|swaps|engine|calls|busy s".split("|"))
    for way in (online, batch):
        figures, ratio = way.figures(), way.rows_per_s / online.rows_per_s
        ends = ", ".join(f"{count} {name}" for name, count in way.ends.items())
        busy = "" if way.watch.any_busy_share is None else f"{way.watch.any_busy_share:.0%}"
        head = [way.name, str(way.rows), ends, f"{way.seconds:.1f}", f"{way.rows_per_s:.2f}", f"{ratio:.2f}", busy]
        cells = [*head, str(way.watch.swaps)]
        for name, engine in figures["engines"].items():
            calls = ", ".join(f"{count} {role}" for role, count in engine["calls"].items())
            out.add_row(*cells, name, calls, f"{engine['busy_s']:.1f}")
            cells = [""] * len(cells)
    return out


def _figures(options: Options, online: Way, batch: Way) -> dict[str, object]:
    return {
        **report.circumstances(),
        "at_once": options.at_once,
        "answer_tokens": options.answer_tokens,
        "online": online.figures(),
        "batch": batch.figures(),
        "ratio": round(batch.rows_per_s / online.rows_per_s, 3),
    }


def _plan(options: Options) -> BatchPlan:
    config = load.load(options.config)
    seats = config.ensembles[options.ensemble].seats if options.ensemble in config.ensembles else ()
    return BatchPlan(
        config_path=options.config,
        url=options.url,
        config=config,
        ensemble=options.ensemble,
        rows=options.rows,
        at_once=options.at_once,
        sizes=Sizes(len(seats), options.answer_tokens),
        prompts=workload.read(options.prompts) if options.prompts else workload.drawn(options.prompt_words, seed=0),
    )


def _log(text: str) -> None:
    console.print(text, soft_wrap=True)
