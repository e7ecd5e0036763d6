"""Shared by the commands: the layout of their help, one-line errors, and exit codes."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from typer.core import TyperArgument, TyperCommand, TyperGroup

from cappella.errors import CappellaError, ConfigError, DoesNotFit, Mistakes

Function = TypeVar("Function", bound=Callable[..., Any])

EXIT_INTERRUPTED = 130
"""128 plus the number of SIGINT, as in shells."""


EXIT_CODES = "Exit codes: 0 done, 1 failed, 2 a mistake in the config or the command line, 130 stopped by Ctrl-C."


class Command(TyperCommand):
    """A command whose help names values in capitals, `--url URL`, shows flags without a type, and ends with exit codes."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.epilog = self.epilog or EXIT_CODES

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_metavars(super().get_params(ctx))

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [re.sub(r"[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]


class Group(TyperGroup):
    """A group whose help looks like a `Command`'s."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _with_metavars(super().get_params(ctx))


class App(typer.Typer):
    """A Typer app whose commands are `Command`s and whose groups are `Group`s."""

    def __init__(self, cls: type[TyperGroup] = Group, **settings: Any) -> None:
        super().__init__(cls=cls, **{"no_args_is_help": True, **settings})

    def command(self, name: str | None = None, **settings: Any) -> Callable[[Function], Function]:
        return super().command(name, **{"cls": Command, **settings})


def _no_type(ctx: Any) -> str:
    return ""


def _with_metavars(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if isinstance(parameter, TyperArgument):
            parameter.display_type_rich = _no_type  # type: ignore[method-assign]
        parameter.metavar = (
            "" if getattr(parameter, "is_flag", False) else str(parameter.name).upper().replace("_", "-")
        )
    return parameters


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error into one line on standard error; exit code 2 for ConfigError, 1 for others, 130 for Ctrl-C."""
    try:
        yield
    except CappellaError as error:
        print_error(error)
        raise typer.Exit(2 if isinstance(error, ConfigError) else 1) from error
    except KeyboardInterrupt as error:
        Console(stderr=True, highlight=False).print("Stopped.")
        raise typer.Exit(EXIT_INTERRUPTED) from error


def print_error(error: CappellaError) -> None:
    """Print a line for each mistake; below, changes of the config that would help, to paste."""
    console = Console(stderr=True, highlight=False)
    for each in error.errors if isinstance(error, Mistakes) else (error,):
        console.print(f"[red]error:[/red] {escape(str(each))}", soft_wrap=True)
        for paste in each.pastes if isinstance(each, DoesNotFit) else ():
            console.print(f"\n{escape(paste.rstrip())}", soft_wrap=True)
