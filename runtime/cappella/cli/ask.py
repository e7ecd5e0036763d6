"""The commands of a client at a terminal: ask, chat, top."""

import asyncio
import io
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from cappella.cli import completion
from cappella.cli.completion import DEFAULT_MODEL, DEFAULT_URL
from cappella.cli.errors import one_line_errors

if TYPE_CHECKING:
    from cappella.cli.client.request import AskOptions

Url = Annotated[str, typer.Option(help="Where the server listens.")]
ServerKey = Annotated[str | None, typer.Option(envvar="CAPPELLA_KEY", help="Where the server wants one.")]
Model = Annotated[str, typer.Option(help="An ensemble, or one model by its name.", autocompletion=completion.models)]
Preset = Annotated[
    str | None,
    typer.Option(help="One of the ensemble's presets, such as quick.", autocompletion=completion.presets),
]
Strategy = Annotated[
    str | None, typer.Option(help=f"{', '.join(completing.STRATEGIES)}.", autocompletion=completion.strategies)
]
Fusion = Annotated[
    list[str] | None,
    typer.Option(help="Any other field of fusion, such as samples=2; may stand several times."),
]
System = Annotated[str | None, typer.Option(help="Instructions before the conversation.")]


def ask(
    prompt: Annotated[str, typer.Argument(help="The question; - reads it from standard input.")],
    model: Model = DEFAULT_MODEL,
    url: Url = DEFAULT_URL,
    preset: Preset = None,
    strategy: Strategy = None,
    fusion: Fusion = None,
    system: System = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole completion as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print the answer alone.")] = False,
    key: ServerKey = None,
) -> None:
    """Ask a running server; on a terminal, watch the members, the analysis and the answer as they come.

    In a pipe only the answer is printed. Ctrl-C stops the run and frees the engines.
    """
    from cappella.cli.client import ask, request
    from cappella.cli.client.http import Server

    _let_all_be_printed()
    with one_line_errors():
        options = _ask_options(model, preset, strategy, fusion, system)
        text = request.text_of(sys.stdin.buffer.read()) if prompt == "-" else prompt
        asyncio.run(ask.ask(Server(url.rstrip("/"), key), options, text, as_json, quiet))


def chat(
    model: Model = DEFAULT_MODEL,
    url: Url = DEFAULT_URL,
    preset: Preset = None,
    strategy: Strategy = None,
    fusion: Fusion = None,
    system: System = None,
    history: Annotated[bool, typer.Option(help="Keep what you write for the arrow keys of the next chat.")] = True,
    key: ServerKey = None,
) -> None:
    """Talk with a running server, turn by turn, and watch each run; /help there lists what else it can do.

    Where standard input is no terminal, each of its lines is a turn.
    """
    from cappella.cli.client import chat
    from cappella.cli.client.http import Server

    _let_all_be_printed()
    with one_line_errors():
        chat.chat(Server(url.rstrip("/"), key), _ask_options(model, preset, strategy, fusion, system), history)


def top(
    url: Url = DEFAULT_URL,
    once: Annotated[bool, typer.Option("--once", help="Show it once.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what the server says of it once, as JSON.")] = False,
    key: ServerKey = None,
) -> None:
    """Watch a running server's engines, memory and load; q ends it."""
    from cappella.cli.client import top
    from cappella.cli.client.http import Server

    _let_all_be_printed()
    with one_line_errors():
        asyncio.run(top.top(Server(url.rstrip("/"), key), once, as_json))


def _ask_options(
    model: str, preset: str | None, strategy: str | None, fusion: list[str] | None, system: str | None
) -> "AskOptions":
    from cappella.cli.client.request import AskOptions, fields

    named = {name: value for name, value in {"preset": preset, "strategy": strategy}.items() if value is not None}
    return AskOptions(model, system, {**fields(fusion or ()), **named})


def _let_all_be_printed() -> None:
    """Half a character, or one that this terminal's encoding lacks, is no reason to fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
