"""What a chat takes beside questions: commands that begin with a slash."""

import re
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from cappella.cli.client.conversation import Conversation
from cappella.cli.client.http import Json
from cappella.cli.client.request import fields
from cappella.cli.client.why import Why
from cappella.cli.completion import STRATEGIES
from cappella.errors import ConfigError

HELP = {
    "/preset": "[NAME]  one of the ensemble's presets; without a name, none",
    "/strategy": f"[NAME]  {', '.join(STRATEGIES)}; without a name, the ensemble's own",
    "/set": "FIELD=VALUE  any other field of fusion, such as samples=2; FIELD= takes it back",
    "/model": "[NAME]  another ensemble, or one model alone; without a name, lists them",
    "/system": "[TEXT]  instructions before the conversation; without a text, none",
    "/retry": "[STRATEGY]  ask the last question again",
    "/why": "who said what of the last answer, what the judge found, where the time went",
    "/save": "FILE  the conversation as Markdown, or as JSON with all traces (.json)",
    "/clear": "forget the conversation",
    "/help": "this list; Alt-Enter begins a new line, Ctrl-C stops a run",
    "/quit": "end; so does Ctrl-D",
}


def is_command(line: str) -> bool:
    """A word behind a slash; what goes on as a path does, or on a second line, is a question."""
    return re.fullmatch(r"/[a-z]*(\s.*)?", line.strip()) is not None and "\n" not in line.strip()


class Commands:
    """Obeys for one conversation. `served` is what the server says that it serves."""

    names = tuple(HELP)

    def __init__(self, conversation: Conversation, served: Sequence[Json]) -> None:
        self.is_over = False
        self._conversation = conversation
        self._served = served
        self._console = Console(highlight=False)

    def values(self, command: str) -> list[str]:
        """What may stand behind a command."""
        match command:
            case "/preset":
                return self._presets
            case "/strategy" | "/retry":
                return list(STRATEGIES)
            case "/model":
                return [each["id"] for each in self._served]
        return []

    def obey(self, line: str) -> str | None:
        """Returns a question, if one is to be asked now. Raises ConfigError for what cannot be done."""
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
                self._say("\n".join(self.values(command)))
            case "/system":
                options.system = rest or None
            case "/retry":
                return self._again(rest)
            case "/why":
                self._explain()
            case "/save" if rest:
                self._conversation.save(Path(rest).expanduser())
                self._say(f"Saved as {rest}.")
            case "/clear":
                self._conversation.clear()
            case "/help":
                self._say("\n".join(f"{name:<10} {text}" for name, text in HELP.items()))
            case "/quit" | "/exit" | "/bye":
                self.is_over = True
            case _:
                raise ConfigError(line.strip(), "is no command", "See /help")
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
            raise ConfigError(f"/set {text}", "sets nothing", "Write /set field=value, such as /set samples=2")

    def _again(self, strategy: str) -> str:
        if strategy:
            self._choose("/strategy", strategy)
        question = self._conversation.take_back()
        if question is None:
            raise ConfigError("/retry", "nothing was asked yet", "Ask something")
        return question

    def _explain(self) -> None:
        if not self._conversation.turns:
            raise ConfigError("/why", "nothing was answered yet", "Ask something")
        self._console.print(Why(self._conversation.turns[-1].view))

    def _say(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)


def _known(command: str, name: str, names: Sequence[str]) -> str:
    if name not in names:
        mend = f"Use one of {', '.join(names)}" if names else "There is none here"
        raise ConfigError(f"{command} {name}", "there is no such name", mend)
    return name
