"""`cappella bench ensemble`: reads the options, shows the progress, prints a table, writes the files."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

from cappella.bench import report, workload
from cappella.bench.compare import Plan, Show, compare
from cappella.bench.load import Load
from cappella.config import Config, load
from cappella.config.yaml_source import option_value
from cappella.engines.supervisor import default_log_dir
from cappella.errors import CappellaError, ConfigError

SPEED_OVER_S = 3600.0
"""The remaining time is estimated from the steps of the last hour, since a step takes seconds to minutes."""

console = Console(stderr=True, highlight=False)


def bench(config: Path, out: Path | None, options: Mapping[str, str | None], runs: int, rounds: int) -> None:
    """Measure and print. `options` are the command line's, unparsed. Raises ConfigError."""
    plan = _plan(config, options, runs, rounds)
    with _showing() as show:
        results = asyncio.run(compare(plan, default_log_dir("bench"), _log, show))
    if not results:
        raise CappellaError("No system gave a reply, so there are no figures.")
    # A pipe gets the full table.
    Console(highlight=False, width=None if console.is_terminal else 240).print(report.table(results))
    for each in results:
        for error in each.errors:
            console.print(f"[red]{each.system}, {each.load}:[/red] {error}", soft_wrap=True)
    if out is not None:
        for path in report.write(results, out):
            console.print(f"Written: {path}")


def _log(text: str) -> None:
    console.print(text, soft_wrap=True)


@contextmanager
def _showing() -> Iterator[Show]:
    """On a terminal a bar, elsewhere a line for each step."""
    if not console.is_terminal:
        yield lambda text, done, steps: _log(text)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), "{task.description}")
    with Progress(*columns, console=console, transient=True, speed_estimate_period=SPEED_OVER_S) as progress:
        task = progress.add_task("starting")
        yield lambda text, done, steps: progress.update(task, description=text, completed=done, total=steps)


def _plan(path: Path, options: Mapping[str, str | None], runs: int, rounds: int) -> Plan:
    def listed(name: str, kind: Callable[[str], Any]) -> list[Any]:
        return _listed(f"--{name}", options[name], kind)

    config = load.load(path)
    ensemble = str(options["ensemble"])
    prompts, python = options["prompts"], options["optillm-python"]
    rates = listed("rate", _positive(float))
    return Plan(
        config_path=path,
        url=options["url"],
        config=config,
        ensemble=ensemble,
        against=listed("against", str),
        loads=[Load(rate_per_s=rate) for rate in rates]
        or [Load(count) for count in listed("concurrency", _positive(int))],
        panels=listed("panel", _positive(int)) or [_panel_size(config, ensemble)],
        answer_tokens=listed("answer-tokens", _positive(int)) or [None],
        prompts=workload.read(Path(prompts)) if prompts else workload.drawn(int(options["prompt-words"] or 0), seed=0),
        optillm_python=Path(python) if python else None,
        runs=runs,
        rounds=rounds,
        fusion=dict(_varied("--fusion", options["fusion"], one=True)),
        vary=_varied("--vary", options["vary"]),
    )


def _panel_size(config: Config, ensemble: str) -> int:
    return len(config.ensembles[ensemble].panel) if ensemble in config.ensembles else 1


def _positive(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    """Reads a number above 0. Raises ValueError for any other."""

    def read(text: str) -> Any:
        value = kind(text)
        if not value > 0:
            raise ValueError(f"{value} is not above 0")
        return value

    return read


def _listed(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    """The values between the commas."""
    try:
        return [kind(part.strip()) for part in (text or "").split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(
            option, f"{text!r} is not a list of positive numbers", "Write them with commas: 1,4,16"
        ) from error


def _varied(option: str, text: str | None, one: bool = False) -> dict[str, Any]:
    """Fields and their YAML values in `early_prefill=true/false;analysis=off`."""
    out: dict[str, Any] = {}
    for part in (text or "").split(";"):
        name, equals, values = part.partition("=")
        if not part.strip():
            continue
        if not equals:
            raise ConfigError(
                option, f"{part!r} is not a setting", "Write field=value, or field=value/value with --vary"
            )
        read: Sequence[Any] = [option_value(option, part, value) for value in values.split("/")]
        out[name.strip()] = read[0] if one else read
    return out
