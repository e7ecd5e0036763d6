"""`cappella bench`: measure an ensemble over its engines, or the gateway alone."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from cappella.cli.client.address import base_url
from cappella.cli.completion import CONFIG
from cappella.cli.errors import App, Group, one_line_errors


class _Group(Group):
    """`cappella bench CONFIG` is short for `cappella bench ensemble CONFIG`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["ensemble", *args]
        return super().parse_args(ctx, args)


app = App(
    cls=_Group,
    help="Measure an ensemble (`cappella bench CONFIG`), or one gateway process over scripted engines.",
)


class Analysis(StrEnum):
    """When the judge writes its analysis."""

    BEFORE = "before"
    ALONGSIDE = "alongside"
    OFF = "off"


Ensemble = Annotated[str, typer.Option("--ensemble", help="The ensemble to measure.")]
Against = Annotated[str, typer.Option(help="Also measure: single, naive, single-plain, naive-plain (comma-separated).")]
Url = Annotated[str | None, typer.Option(help="Measure this running server instead of starting one.")]
Concurrency = Annotated[str, typer.Option(help="Runs in flight at once (comma-separated).")]
Rate = Annotated[str, typer.Option(help="Instead: runs that start per second, at random times (comma-separated).")]
Panel = Annotated[str, typer.Option(help="Panel sizes; members repeat (comma-separated). (default: the config's)")]
AnswerTokens = Annotated[str, typer.Option(help="Tokens of an answer (comma-separated); empty: no limit.")]
PromptWords = Annotated[int, typer.Option(min=1, help="Random words in a prompt.")]
Prompts = Annotated[Path | None, typer.Option(help="Instead: a file with one prompt per line.")]
Runs = Annotated[int, typer.Option(min=1, help="Runs of each system per round.")]
Rounds = Annotated[int, typer.Option(min=1, help="Rounds; every system takes a turn in each.")]
Fusion = Annotated[str, typer.Option(help="Fusion fields of every run: analysis=off;early_exit=equal.")]
Vary = Annotated[str, typer.Option(help="Fusion fields to compare: early_prefill=true/false.")]
OptillmPython = Annotated[Path | None, typer.Option(help="Also measure optillm, installed for this Python.")]
Out = Annotated[Path | None, typer.Option(help="Folder for bench.json and bench.svg.")]


@app.command()
def ensemble(
    config: Annotated[Path, CONFIG],
    name: Ensemble = "default",
    against: Against = "",
    url: Url = None,
    concurrency: Concurrency = "1,4,16",
    rate: Rate = "",
    panel: Panel = "",
    answer_tokens: AnswerTokens = "64",
    prompt_words: PromptWords = 60,
    prompts: Prompts = None,
    runs: Runs = 16,
    rounds: Rounds = 3,
    fusion: Fusion = "",
    vary: Vary = "",
    optillm_python: OptillmPython = None,
    out: Out = None,
) -> None:
    """Measure an ensemble over its engines: throughput, latency, stages, overhead, ratio to the fastest possible run.

    Systems take turns in every round, so that a slow minute of the machine affects all of them.
    """
    from cappella.bench.session import bench as run_bench

    options: dict[str, str | None] = {
        "ensemble": name,
        "against": against,
        "url": url and base_url(url),
        "concurrency": concurrency,
        "rate": rate,
        "panel": panel,
        "answer-tokens": answer_tokens,
        "prompt-words": str(prompt_words),
        "prompts": str(prompts) if prompts else None,
        "optillm-python": str(optillm_python) if optillm_python else None,
        "fusion": fusion,
        "vary": vary,
    }
    with one_line_errors():
        run_bench(config, out, options, runs, rounds)


@app.command()
def batch(
    config: Annotated[Path, CONFIG],
    name: Ensemble = "default",
    url: Url = None,
    rows: Annotated[int, typer.Option(min=1, help="Prompts in each of the two ways.")] = 200,
    at_once: Annotated[int, typer.Option(min=1, help="Requests in flight at once, online.")] = 16,
    answer_tokens: Annotated[int | None, typer.Option(min=1, help="Tokens of an answer.")] = 64,
    prompt_words: PromptWords = 60,
    prompts: Prompts = None,
    out: Annotated[Path | None, typer.Option("--json", help="File for the figures as JSON.")] = None,
) -> None:
    """Measure the same kind of prompts online, so many at once, and as one batch: rows a second, calls and seconds of
    each engine, swaps, and the share of time in which an engine was busy.

    The config needs `server.batch`.
    """
    from cappella.bench.batch_session import Options, bench

    address = url and base_url(url)
    with one_line_errors():
        bench(Options(config, address, name, rows, at_once, answer_tokens, prompt_words, prompts), out)


@app.command()
def gateway(
    runs: Annotated[int, typer.Option(min=1, help="Runs in flight at once; 1 measures the overhead of a run.")] = 400,
    panel: Annotated[int, typer.Option(min=1, help="Members of the panel.")] = 3,
    tokens: Annotated[int, typer.Option(min=1, help="Tokens of each answer, at 100 a second.")] = 100,
    seconds: Annotated[float, typer.Option(min=1, help="Duration of the measurement.")] = 60,
    analysis: Annotated[Analysis, typer.Option(help="The judge's analysis: before, alongside or off.")] = Analysis.OFF,
    events: Annotated[bool, typer.Option("--events", help="Clients also receive the members' events.")] = False,
    sequences: Annotated[int, typer.Option(min=1, help="Requests that each engine runs at once.")] = 4096,
    overload: Annotated[
        float | None, typer.Option(min=1, help="Instead: open loop at this multiple of the measured capacity.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File for the figures as JSON.")] = None,
) -> None:
    """Load one gateway process with runs over scripted engines: throughput, added latency, CPU time, memory.

    Needs no model and no GPU.
    """
    from cappella.bench.gateway.command import bench
    from cappella.bench.gateway.processes import Options

    with one_line_errors():
        bench(Options(runs, panel, tokens, seconds, analysis, events, sequences, overload), out)
