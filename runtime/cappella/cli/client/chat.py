"""`cappella chat`: a conversation on a terminal, with slash commands."""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cappella.cli.client import request, slash
from cappella.cli.client.conversation import Conversation, Turn
from cappella.cli.client.http import Json, Server, get
from cappella.cli.client.request import AskOptions
from cappella.cli.client.slash import Commands
from cappella.cli.errors import print_error
from cappella.config import paths
from cappella.errors import CappellaError

MODELS_TIMEOUT_S = 10.0


def chat(server: Server, options: AskOptions, keeps_history: bool) -> None:
    """Chat until the end of input, or /quit. Raises ServerError if the server does not list its models."""
    served = asyncio.run(get(server, "/v1/models", MODELS_TIMEOUT_S))["data"]
    conversation = Conversation(options)
    console = request.watched_console()
    session = _Session(server, conversation, Commands(conversation, served), console)
    if console and sys.stdin.isatty():
        session.print_intro(served)
        session.run_terminal(keeps_history)
    else:
        session.run_script(request.text_of(line) for line in sys.stdin.buffer)


class _Session:
    """One conversation between standard input and a server."""

    def __init__(self, server: Server, conversation: Conversation, commands: Commands, console: Console | None) -> None:
        self._server = server
        self._conversation = conversation
        self._commands = commands
        self._console = console

    def print_intro(self, served: list[Json]) -> None:
        """Print the panel, the judge, the ensemble's notice, and how to quit."""
        options = self._conversation.options
        entry = next((model for model in served if model["id"] == options.model), {})
        judge = f"; judge {entry['judge']}" if entry.get("judge") else ""
        panel = f": {', '.join(entry['panel'])}{judge}" if "panel" in entry else ""
        notice = f"\n{entry['notice']}" if "notice" in entry else ""
        text = f"{options.model} on {self._server.url}{panel}{notice}\n/help lists the commands, Ctrl-D ends."
        Console(highlight=False).print(Text(text, "dim"))

    def run_terminal(self, keeps_history: bool) -> None:
        """Read turns from a terminal. Ctrl-C cancels a run, or clears an unfinished line."""
        from cappella.cli.client.line_editor import Prompter

        prompter = Prompter(self._commands.names, self._commands.values, self._about, history_path(keeps_history))
        while (line := prompter.read()) is not None:
            try:
                if not self._turn(line):
                    return
            except KeyboardInterrupt:
                print("Cancelled; /retry asks it again.", file=sys.stderr)

    def run_script(self, lines: Iterable[str]) -> None:
        """Take every line as a turn. Raises ServerError at the first that fails."""
        for line in lines:
            if line.strip() and not self._turn(line.rstrip("\n"), is_interactive=False):
                return

    def _about(self) -> str:
        """The model and settings of the next question."""
        options = self._conversation.options
        return " · ".join([options.model, *(f"{name} {value}" for name, value in options.fusion.items())])

    def _turn(self, line: str, is_interactive: bool = True) -> bool:
        """Take a question or a command; False ends the chat. Errors are printed on a terminal, and end a script."""
        try:
            question = self._commands.run(line) if slash.is_command(line) else line
            if question is not None:
                self._ask(question)
        except CappellaError as error:
            if not is_interactive:
                raise
            print_error(error)
        return not self._commands.is_over

    def _ask(self, question: str) -> None:
        conversation = self._conversation
        messages = conversation.with_question(question)
        conversation.unanswered = question
        if self._console:
            run = request.show(self._server, conversation.options, messages, self._console, whole_members=False)
        else:
            run = request.stream_plain(self._server, conversation.options, messages, at_once=False)
        view = asyncio.run(run)
        conversation.turns.append(Turn(question, view))
        conversation.unanswered = None


def history_path(keeps_history: bool) -> Path | None:
    """The history file, readable by its owner only; None if there is to be no history, or no file can be created."""
    if not keeps_history:
        return None
    path = paths.state_dir() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return None
    return path
