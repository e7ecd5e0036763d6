"""`cappella bench` as a person sees it: what was asked for, what goes on, a table, and where the rest lies."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cappella.bench import report, workload
from cappella.bench.compare import Plan, compare
from cappella.bench.load import Load
from cappella.bench.progress import Say
from cappella.config import Config, load
from cappella.engines.supervisor import default_log_dir
from cappella.errors import CappellaError, ConfigError

console = Console(stderr=True, highlight=False)


def bench(config: Path, out: Path | None, options: Mapping[str, str | None], runs: int, rounds: int) -> None:
    """Measure and tell. `options` are the command line's, as they were written. Raises ConfigError."""
    plan = _plan(config, options, runs, rounds)
    with _showing() as show:
        found = asyncio.run(compare(plan, default_log_dir("bench"), _say, show))
    if not found:
        raise CappellaError("Nothing was measured.")
    # A table is for a wide screen; in a pipe it must not be folded.
    Console(highlight=False, width=None if console.is_terminal else 240).print(report.table(found))
    for each in found:
        for error in each.errors:
            console.print(f"[red]{each.system}, {each.load}:[/red] {error}", soft_wrap=True)
    if out is not None:
        for path in report.write(found, out):
            console.print(f"Written: {path}")


def _say(text: str) -> None:
    console.print(text, soft_wrap=True)


@contextmanager
def _showing() -> Iterator[Say]:
    """On a terminal a line that changes, elsewhere one more line."""
    if not console.is_terminal:
        yield _say
        return
    with console.status("") as status:
        yield status.update


def _plan(path: Path, options: Mapping[str, str | None], runs: int, rounds: int) -> Plan:
    def listed(name: str, kind: Callable[[str], Any]) -> list[Any]:
        return _listed(f"--{name}", options[name], kind)

    config = load.load(path)
    ensemble = str(options["ensemble"])
    prompts, python = options["prompts"], options["optillm-python"]
    rates = listed("rate", float)
    return Plan(
        config_path=path,
        url=options["url"],
        config=config,
        ensemble=ensemble,
        against=listed("against", str),
        loads=[Load(rate_per_s=rate) for rate in rates] or [Load(count) for count in listed("concurrency", int)],
        panels=listed("panel", int) or [_panel_size(config, ensemble)],
        answer_tokens=listed("answer-tokens", int) or [None],
        prompts=workload.read(Path(prompts)) if prompts else workload.drawn(int(options["prompt-words"] or 0), seed=0),
        optillm_python=Path(python) if python else None,
        runs=runs,
        rounds=rounds,
        fusion=dict(_varied("--fusion", options["fusion"], one=True)),
        vary=_varied("--vary", options["vary"]),
    )


def _panel_size(config: Config, ensemble: str) -> int:
    return len(config.ensembles[ensemble].panel) if ensemble in config.ensembles else 1


def _listed(option: str, text: str | None, kind: Callable[[str], Any]) -> list[Any]:
    """The values between commas."""
    try:
        return [kind(part.strip()) for part in (text or "").split(",") if part.strip()]
    except ValueError as error:
        raise ConfigError(option, f"{text!r} is no list of numbers", "Write them with commas: 1,4,16") from error


def _varied(option: str, text: str | None, one: bool = False) -> dict[str, Any]:
    """`early_prefill=true/false;analysis=off`: fields and their values, read as YAML reads them."""
    out: dict[str, Any] = {}
    for part in (text or "").split(";"):
        name, equals, values = part.partition("=")
        if not part.strip():
            continue
        if not equals:
            raise ConfigError(option, f"{part!r} sets nothing", "Write field=value, or field=value/value with --vary")
        read: Sequence[Any] = [_value(name.strip(), value) for value in values.split("/")]
        out[name.strip()] = read[0] if one else read
    return out


def _value(field: str, text: str) -> Any:
    value = yaml.safe_load(text)
    # YAML reads a bare off as false, and here it is a mode.
    return text.strip() if isinstance(value, bool) and text.strip() not in ("true", "false") else value
