"""`cappella models`: list, show and remove the models of this machine."""

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from cappella.cli.completion import SUFFIXES
from cappella.cli.errors import App, one_line_errors
from cappella.errors import ConfigError

app = App(
    no_args_is_help=False,
    invoke_without_command=True,
    help="The models of this machine: in the Hugging Face cache, and where `cappella pull` puts them.",
)

Name = Annotated[str, typer.Argument(help="A model of the list, such as Qwen/Qwen3-8B, or its folder.")]
Configs = Annotated[
    list[Path] | None, typer.Option("--config", help="A config that may use them. (default: the YAML files here)")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.callback()
def list_models(context: typer.Context, config: Configs = None, as_json: AsJson = False) -> None:
    """List them: source, size, licence, context, family, and the configs that use them."""
    if context.invoked_subcommand:
        return
    from cappella.bundle import inventory
    from cappella.bundle.progress import human

    with one_line_errors():
        found = inventory.models(_configs(config))
    if as_json:
        print(json.dumps([_as_dict(each) for each in found], indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("model", "from", "size", "licence", "context", "family", "used by", "problem"):
        table.add_column(heading)
    for each in found:
        size, context_ = human(each.size_bytes), str(each.context_tokens or "")
        used = "\n".join(each.used_by)
        table.add_row(each.name, each.source, size, each.licence, context_, each.family, used, each.problem)
    Console(highlight=False).print(table)


@app.command()
def show(name: Name, config: Configs = None, as_json: AsJson = False) -> None:
    """Show one model, with its folder."""
    from cappella.bundle import inventory

    with one_line_errors():
        found = _as_dict(inventory.one(name, _configs(config)))
    if as_json:
        print(json.dumps(found, indent=2))
        return
    for key, value in found.items():
        print(f"{key}: {', '.join(value) if isinstance(value, list) else value}")


@app.command()
def rm(
    name: Name, config: Configs = None, yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False
) -> None:
    """Delete a model's files. Asks first."""
    from cappella.bundle import inventory
    from cappella.bundle.file_copy import disk_errors
    from cappella.bundle.progress import human

    with one_line_errors():
        found = inventory.one(name, _configs(config))
        used = f", used by {', '.join(found.used_by)}" if found.used_by else ""
        question = f"Delete {found.folder} ({human(found.size_bytes)}{used})?"
        if not yes and not (sys.stdin.isatty() and typer.confirm(question)):
            raise ConfigError(found.name, "was not deleted", "Answer y, or use --yes")
        with disk_errors(found.folder, "Delete it by hand"):
            inventory.remove(found)
        print(f"{found.name}: deleted")


def _configs(named: list[Path] | None) -> list[Path]:
    """Those that are named, which must be right, or the YAML files here, of which some may be none. Raises ConfigError."""
    from cappella.config import load

    for path in named or ():
        load.load(path)
    return named or [path for path in sorted(Path().iterdir()) if path.suffix in SUFFIXES]


def _as_dict(model: Any) -> dict[str, Any]:
    return {**asdict(model), "folder": str(model.folder), "used_by": list(model.used_by)}
