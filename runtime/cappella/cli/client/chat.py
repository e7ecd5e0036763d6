"""`cappella chat`: turn by turn, every run watched, and a few commands that begin with a slash."""

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
from cappella.cli.errors import tell
from cappella.config import paths
from cappella.errors import CappellaError

MODELS_TIMEOUT_S = 10.0


def chat(server: Server, options: AskOptions, keeps_history: bool) -> None:
    """Until the end of input, or /quit. Raises ServerError if the server cannot be asked what it serves."""
    served = asyncio.run(get(server, "/v1/models", MODELS_TIMEOUT_S))["data"]
    conversation = Conversation(options)
    console = request.watched_console()
    session = _Session(server, conversation, Commands(conversation, served), console)
    if console and sys.stdin.isatty():
        session.greet(served)
        session.talk(keeps_history)
    else:
        session.read(request.text_of(line) for line in sys.stdin.buffer)


class _Session:
    """The conversation between a person, or a file, and a server."""

    def __init__(self, server: Server, conversation: Conversation, commands: Commands, console: Console | None) -> None:
        self._server = server
        self._conversation = conversation
        self._commands = commands
        self._console = console

    def greet(self, served: list[Json]) -> None:
        """Who answers here, and the way out."""
        options = self._conversation.options
        about = next((each for each in served if each["id"] == options.model), {})
        who = f": {', '.join(about['panel'])}; judge {about['judge']}" if "panel" in about else ""
        text = f"{options.model} on {self._server.url}{who}\n/help lists the commands, Ctrl-D ends."
        Console(highlight=False).print(Text(text, "dim"))

    def talk(self, keeps_history: bool) -> None:
        """Read turns from a person. Ctrl-C stops a run, and throws away a line that is being written."""
        from cappella.cli.client.line_editor import Prompter

        prompter = Prompter(self._commands.names, self._commands.values, self._about, history_path(keeps_history))
        while (line := prompter.read()) is not None:
            try:
                if not self._turn(line):
                    return
            except KeyboardInterrupt:
                print("Stopped; /retry asks it again.", file=sys.stderr)

    def read(self, lines: Iterable[str]) -> None:
        """Every line is a turn. Raises ServerError with the first that fails."""
        for line in lines:
            if line.strip() and not self._turn(line.rstrip("\n"), is_a_person=False):
                return

    def _about(self) -> str:
        """What the next question will be asked with."""
        options = self._conversation.options
        return " · ".join([options.model, *(f"{name} {value}" for name, value in options.fusion.items())])

    def _turn(self, line: str, is_a_person: bool = True) -> bool:
        """A question or a command; False if it was the last. Errors are told to a person, and end a script."""
        try:
            question = self._commands.obey(line) if slash.is_command(line) else line
            if question is not None:
                self._ask(question)
        except CappellaError as error:
            if not is_a_person:
                raise
            tell(error)
        return not self._commands.is_over

    def _ask(self, question: str) -> None:
        conversation = self._conversation
        messages = conversation.with_question(question)
        conversation.unanswered = question
        if self._console:
            run = request.show(self._server, conversation.options, messages, self._console, whole_members=False)
        else:
            run = request.tell(self._server, conversation.options, messages, at_once=False)
        view = asyncio.run(run)
        conversation.turns.append(Turn(question, view))
        conversation.unanswered = None


def history_path(keeps: bool) -> Path | None:
    """The file of what was written in earlier chats, for its owner alone; None if it is not to be kept, or cannot."""
    if not keeps:
        return None
    path = paths.state_dir() / "chat_history"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return None
    return path
