"""How a command ends that could not do what it was told, or was told to stop."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from cappella.errors import CappellaError, ConfigError

EXIT_INTERRUPTED = 130
"""As shells have it: 128, and the number of SIGINT."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """One line on standard error; exit code 2 for a config, 1 for the rest, 130 for Ctrl-C."""
    try:
        yield
    except CappellaError as error:
        tell(error)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt as error:
        Console(stderr=True, highlight=False).print("Stopped.")
        raise typer.Exit(EXIT_INTERRUPTED) from error


def tell(error: CappellaError) -> None:
    """The one line."""
    Console(stderr=True, highlight=False).print(f"[red]error:[/red] {escape(str(error))}", soft_wrap=True)
