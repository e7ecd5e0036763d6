"""The slash commands of a chat."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cappella.cli.client.conversation import Conversation
from cappella.cli.client.http import Json
from cappella.cli.client.request import fields
from cappella.cli.client.why import Why
from cappella.cli.completion import STRATEGIES
from cappella.errors import ConfigError

HELP = {
    "/preset": "[NAME]  use a preset of the ensemble; without a name, none",
    "/strategy": f"[NAME]  {', '.join(STRATEGIES)}; without a name, the ensemble's own",
    "/set": "FIELD=VALUE  set any other field of fusion, such as samples=2; FIELD= unsets it",
    "/model": "[NAME]  ask another ensemble, or a single model; without a name, list them",
    "/system": "[TEXT]  set the system prompt; without a text, none",
    "/retry": "[STRATEGY]  ask the last question again",
    "/why": "show which member said what in the last answer, the analysis, and the timings",
    "/save": "FILE  save the conversation as Markdown, or as JSON with all traces (.json)",
    "/clear": "forget the conversation",
    "/help": "show this list; Alt-Enter starts a new line, Ctrl-C cancels a run",
    "/quit": "quit; so does Ctrl-D",
}


def is_command(line: str) -> bool:
    """Whether a line is a slash and a word; a path, or a text of several lines, is a question."""
    return re.fullmatch(r"/[a-z]*(\s.*)?", line.strip()) is not None and "\n" not in line.strip()


class Commands:
    """Runs commands on one conversation. `served` is the server's list of models."""

    names = tuple(HELP)

    def __init__(self, conversation: Conversation, served: Sequence[Json]) -> None:
        self.is_over = False
        self._conversation = conversation
        self._served = served
        self._console = Console(highlight=False)

    def values(self, command: str) -> list[str]:
        """Possible arguments of a command."""
        match command:
            case "/preset":
                return self._presets
            case "/strategy" | "/retry":
                return list(STRATEGIES)
            case "/model":
                return [each["id"] for each in self._served if each.get("task", "generate") == "generate"]
        return []

    def run(self, line: str) -> str | None:
        """Run a command; returns a question to send now, if any. Raises ConfigError for an invalid command."""
        command, _, rest = line.strip().partition(" ")
        rest, options = rest.strip(), self._conversation.options
        match command:
            case "/preset" | "/strategy":
                self._choose(command, rest)
            case "/set":
                self._set(rest)
            case "/model" if rest:
                options.model = _known(command, rest, self.values(command))
            case "/model":
                self._print("\n".join(self.values(command)))
            case "/system":
                options.system = rest or None
            case "/retry":
                return self._repeat(rest)
            case "/why":
                self._explain()
            case "/save" if rest:
                self._conversation.save(Path(rest).expanduser())
                self._print(f"Saved as {rest}.")
            case "/clear":
                self._conversation.clear()
            case "/help":
                self._console.print(_help())
            case "/quit" | "/exit" | "/bye":
                self.is_over = True
            case _:
                raise ConfigError(line.strip(), "unknown command", "See /help")
        return None

    @property
    def _presets(self) -> list[str]:
        model = self._conversation.options.model
        return [str(name) for each in self._served if each["id"] == model for name in each.get("presets", ())]

    def _choose(self, command: str, name: str) -> None:
        field = command.removeprefix("/")
        if name:
            self._conversation.options.fusion[field] = _known(command, name, self.values(command))
        else:
            self._conversation.options.fusion.pop(field, None)

    def _set(self, text: str) -> None:
        field, _, value = text.partition("=")
        if value:
            self._conversation.options.fusion.update(fields([text]))
        elif self._conversation.options.fusion.pop(field.strip(), None) is None:
            raise ConfigError(f"/set {text}", "not a setting", "Write /set field=value, such as /set samples=2")

    def _repeat(self, strategy: str) -> str:
        if strategy:
            self._choose("/strategy", strategy)
        question = self._conversation.take_back()
        if question is None:
            raise ConfigError("/retry", "no question yet", "Ask one first")
        return question

    def _explain(self) -> None:
        if not self._conversation.turns:
            raise ConfigError("/why", "no answer yet", "Ask a question first")
        self._console.print(Why(self._conversation.turns[-1].view))

    def _print(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def _help() -> Table:
    """The commands; texts wrap beside their names."""
    table = Table.grid(padding=(0, 1, 0, 0))
    for name, text in HELP.items():
        table.add_row(Text(name), Text(text))
    return table


def _known(command: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        hint = f"Use one of {', '.join(names)}" if names else "None are defined"
        raise ConfigError(f"{command} {name}", "unknown name", hint)
    return name
