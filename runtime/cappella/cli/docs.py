"""`cappella docs`: the documentation on a terminal."""

import os
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from cappella.cli.errors import one_line_errors
from cappella.docs.topics import NAMES, topics
from cappella.errors import ConfigError


def _names(incomplete: str) -> list[str]:
    return [name for name in NAMES if name.startswith(incomplete)]


def docs(
    topic: Annotated[
        str | None, typer.Argument(help="A page; without it, all are listed.", autocompletion=_names)
    ] = None,
) -> None:
    """Read the documentation: own models, hardware, config, API, operations, troubleshooting. A pipe gets Markdown."""
    pages = {each.name: each for each in topics()}
    with one_line_errors():
        if topic is None:
            table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
            for page in pages.values():
                table.add_row(page.name, page.title)
            Console(highlight=False).print(table, "\ncappella docs NAME shows one.", sep="")
        elif topic not in pages:
            raise ConfigError("TOPIC", f"there is no page {topic!r}", f"Take one of {', '.join(NAMES)}")
        elif sys.stdout.isatty():
            from rich.markdown import Markdown

            # Without it `less` shows the codes of colours as text.
            os.environ.setdefault("LESS", "-R")
            console = Console(width=min(Console().width, 100))
            with console.pager(styles=True):
                console.print(Markdown(pages[topic].text, hyperlinks=False))
        else:
            print(pages[topic].text, end="")
