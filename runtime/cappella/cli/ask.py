"""The client's commands: ask, chat and top."""

import asyncio
import io
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cappella.cli import completion
from cappella.cli.client.address import DEFAULT_URL, base_url
from cappella.cli.completion import DEFAULT_MODEL
from cappella.cli.errors import one_line_errors

if TYPE_CHECKING:
    from cappella.cli.client.request import AskOptions

Url = Annotated[
    str, typer.Option(envvar="CAPPELLA_URL", callback=base_url, help="Address of the server, with or without /v1.")
]
ServerKey = Annotated[str | None, typer.Option(envvar="CAPPELLA_KEY", help="API key, if the server requires one.")]
Model = Annotated[str, typer.Option(help="An ensemble or a single model.", autocompletion=completion.models)]
Preset = Annotated[
    str | None,
    typer.Option(help="A preset of the ensemble, such as quick.", autocompletion=completion.presets),
]
Strategy = Annotated[
    str | None, typer.Option(help=f"{', '.join(completion.STRATEGIES)}.", autocompletion=completion.strategies)
]
Fusion = Annotated[
    list[str] | None,
    typer.Option(help="Any other field of fusion, such as samples=2. Repeatable."),
]
System = Annotated[str | None, typer.Option(help="System prompt.")]


def ask(
    prompt: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    model: Model = DEFAULT_MODEL,
    url: Url = DEFAULT_URL,
    preset: Preset = None,
    strategy: Strategy = None,
    fusion: Fusion = None,
    system: System = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the completion as JSON, with the members' answers.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the answer.")] = False,
    why: Annotated[
        bool, typer.Option("--why", help="On a terminal, show which member said what and the timings.")
    ] = False,
    key: ServerKey = None,
) -> None:
    """Ask a running server. A terminal shows the members, the analysis and the answer as they are written.

    A pipe receives only the answer. Ctrl-C cancels the run and frees the engines.
    """
    from cappella.cli.client import ask, request
    from cappella.cli.client.http import Server

    _replace_unprintable()
    with one_line_errors():
        options = _ask_options(model, preset, strategy, fusion, system)
        text = request.text_of(sys.stdin.buffer.read()) if prompt == "-" else prompt
        asyncio.run(ask.ask(Server(url, key), options, text, as_json, quiet, why))


def chat(
    model: Model = DEFAULT_MODEL,
    url: Url = DEFAULT_URL,
    preset: Preset = None,
    strategy: Strategy = None,
    fusion: Fusion = None,
    system: System = None,
    history: Annotated[bool, typer.Option(help="Keep a history of your questions for the arrow keys.")] = True,
    key: ServerKey = None,
) -> None:
    """Chat with a running server. /help lists the commands.

    If standard input is not a terminal, each of its lines is one turn.
    """
    from cappella.cli.client import chat
    from cappella.cli.client.http import Server

    _replace_unprintable()
    with one_line_errors():
        chat.chat(Server(url, key), _ask_options(model, preset, strategy, fusion, system), history)


def top(
    url: Url = DEFAULT_URL,
    once: Annotated[bool, typer.Option("--once", help="Print once and exit.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print once, as JSON.")] = False,
    key: ServerKey = None,
) -> None:
    """Watch the engines, memory and load of a running server. q quits."""
    from cappella.cli.client import top
    from cappella.cli.client.http import Server

    _replace_unprintable()
    with one_line_errors():
        asyncio.run(top.top(Server(url, key), once, as_json))


def _ask_options(
    model: str, preset: str | None, strategy: str | None, fusion: list[str] | None, system: str | None
) -> "AskOptions":
    from cappella.cli.client.request import AskOptions, fields

    named = {name: value for name, value in {"preset": preset, "strategy": strategy}.items() if value is not None}
    return AskOptions(model, system, {**fields(fusion or ()), **named})


def _replace_unprintable() -> None:
    """Characters that this terminal's encoding lacks are replaced instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
