"""`cappella chat`: turn by turn, every run watched, and a few commands that begin with a slash."""

import asyncio
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cappella.errors import CappellaError
from cappella.exits import tell
from cappella.remote import Json, Server, get
from cappella.terminal import asking, slash
from cappella.terminal.asking import Wish
from cappella.terminal.conversation import Conversation, Turn
from cappella.terminal.slash import Commands

MODELS_TIMEOUT_S = 10.0


def chat(server: Server, wish: Wish, keeps_history: bool) -> None:
    """Until the end of input, or /quit. Raises ServerError if the server cannot be asked what it serves."""
    served = asyncio.run(get(server, "/v1/models", MODELS_TIMEOUT_S))["data"]
    conversation = Conversation(wish)
    console = asking.watched_console()
    session = _Session(server, conversation, Commands(conversation, served), console)
    if console and sys.stdin.isatty():
        session.greet(served)
        session.talk(keeps_history)
    else:
        session.read(asking.text_of(line) for line in sys.stdin.buffer)


class _Session:
    """The conversation between a person, or a file, and a server."""

    def __init__(self, server: Server, conversation: Conversation, commands: Commands, console: Console | None) -> None:
        self._server = server
        self._conversation = conversation
        self._commands = commands
        self._console = console

    def greet(self, served: list[Json]) -> None:
        """Who answers here, and the way out."""
        wish = self._conversation.wish
        about = next((each for each in served if each["id"] == wish.model), {})
        who = f": {', '.join(about['panel'])}; judge {about['judge']}" if "panel" in about else ""
        text = f"{wish.model} on {self._server.url}{who}\n/help lists the commands, Ctrl-D ends."
        Console(highlight=False).print(Text(text, "dim"))

    def talk(self, keeps_history: bool) -> None:
        """Read turns from a person. Ctrl-C stops a run, and throws away a line that is being written."""
        from cappella.terminal.prompting import Prompter

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
        wish = self._conversation.wish
        return " · ".join([wish.model, *(f"{name} {value}" for name, value in wish.fusion.items())])

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
            run = asking.show(self._server, conversation.wish, messages, self._console, whole_members=False)
        else:
            run = asking.tell(self._server, conversation.wish, messages, at_once=False)
        view = asyncio.run(run)
        conversation.turns.append(Turn(question, view))
        conversation.unanswered = None


def history_path(keeps: bool) -> Path | None:
    """The file of what was written in earlier chats, for its owner alone; None if it is not to be kept, or cannot."""
    if not keeps:
        return None
    folder = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cappella"
    path = folder / "chat_history"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600))
    except OSError:
        return None
    return path
