"""How a command ends that could not do what it was told."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from cappella.errors import CappellaError, ConfigError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """One line on standard error; exit code 2 for a config, 1 for the rest."""
    try:
        yield
    except CappellaError as error:
        Console(stderr=True, highlight=False).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
