"""`cappella init`: choose models for this machine, and write a config of them that fits."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cappella.cli.errors import one_line_errors
from cappella.errors import ConfigError


def file_of(models: Sequence[str]) -> Path:
    """A config of these models, written to the folder of state; what it holds is printed. Raises ConfigError."""
    from cappella.bundle import first_config
    from cappella.config import paths, weights
    from cappella.placement import machine

    if missing := [name for name in models if not weights.locate(name, Path.cwd()).is_dir()]:
        hint = "Fetch them: " + ", ".join(f"`cappella pull {name}`" for name in missing)
        raise ConfigError(", ".join(missing), "not on this machine", hint)
    made = first_config.make(models, None, machine.own())
    path = paths.state_dir() / "served.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(made.text, encoding="utf-8")
    print(f"{made.summary}\nThe config: {path}")
    return path


def init(
    models: Annotated[
        str | None,
        typer.Option(help="The members: hub ids or folders, with commas. (default: chosen among those here)"),
    ] = None,
    judge: Annotated[str | None, typer.Option(help="The judge. (default: the strongest that fits)")] = None,
    gpus: Annotated[str | None, typer.Option(help="For these GPUs instead of this machine: H100, 2x24GiB.")] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("cappella.yaml"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the config instead of writing it.")] = False,
) -> None:
    """Write a config: a panel of different families and like strength, and a judge not weaker than any, that fit.

    Chooses among the models of this machine; without any, for GPUs, among those whose cards Cappella has.
    """
    from rich.console import Console

    from cappella.bundle import first_config
    from cappella.placement import machine, report

    with one_line_errors():
        if judge and not models:
            raise ConfigError("--judge", "needs --models, the members", "Name them, or leave --judge out")
        if out.exists() and not dry_run:
            raise ConfigError(str(out), "is there already", "Name another file with --out, or move it away")
        here = machine.described(gpus) if gpus else machine.own()
        made = first_config.make(models.split(",") if models else None, judge, here)
        shown = Console(highlight=False, stderr=dry_run)
        shown.print(f"{made.summary}\n", soft_wrap=True)
        shown.print(report.picture(made.plan, made.config))
        if dry_run:
            print(made.text, end="")
            return
        out.write_text(made.text, encoding="utf-8")
        pull = f"cappella pull {out} ({', '.join(made.missing)}), then " if made.missing else ""
        print(f"Wrote {out}. Next: {pull}cappella serve {out}")
