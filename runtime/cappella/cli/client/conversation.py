"""A conversation: its turns, its settings, and its files."""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from cappella.cli.client.http import Json
from cappella.cli.client.request import AskOptions
from cappella.errors import ConfigError, cause
from cappella.run_view import View


@dataclass(slots=True)
class Turn:
    """A question and the run that answered it."""

    question: str
    view: View


@dataclass(slots=True)
class Conversation:
    """The turns so far. `unanswered` is a question whose run failed or was cancelled; it is not part of the conversation."""

    options: AskOptions
    turns: list[Turn] = field(default_factory=list)
    unanswered: str | None = None

    def with_question(self, question: str) -> list[Json]:
        """The messages of a request that asks this question next."""
        messages: list[Json] = []
        for turn in self.turns:
            messages += [_message("user", turn.question), _message("assistant", turn.view.answer)]
        return [*messages, _message("user", question)]

    def take_back(self) -> str | None:
        """Remove the last question, with its answer, and return it."""
        if self.unanswered is not None:
            return self.unanswered
        return self.turns.pop().question if self.turns else None

    def clear(self) -> None:
        self.turns.clear()
        self.unanswered = None

    def save(self, path: Path) -> None:
        """Write JSON if the name ends in .json, otherwise Markdown. Raises ConfigError; an existing file is never overwritten."""
        text = self._as_json() if path.suffix == ".json" else self._as_markdown()
        try:
            # Readable by its owner only, whatever the folder allows.
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                file.write(text)
        except FileExistsError as error:
            raise ConfigError(str(path), "exists already", "Choose another name") from error
        except OSError as error:
            raise ConfigError(str(path), f"cannot be written ({cause(error)})", "Choose another name") from error

    def _as_json(self) -> str:
        turns = [
            {
                "question": turn.question,
                "answer": turn.view.answer,
                "members": {name: member.text for name, member in turn.view.members.items()},
                "analysis": turn.view.analysis,
                "fusion": turn.view.fusion,
                "usage": turn.view.usage,
            }
            for turn in self.turns
        ]
        about = {"model": self.options.model, "system": self.options.system, "turns": turns}
        # A lone half of a surrogate pair, which a model may write, is no UTF-8: here it is written as an escape.
        return json.dumps(about, indent=2) + "\n"

    def _as_markdown(self) -> str:
        parts = [f"# {self.options.model}"]
        parts += [f"> {self.options.system}"] if self.options.system else []
        for turn in self.turns:
            parts += [f"## {turn.question.strip()}", turn.view.answer.strip()]
        return ("\n\n".join(parts) + "\n").encode(errors="replace").decode()


def _message(role: str, content: str) -> Json:
    return {"role": role, "content": content}
