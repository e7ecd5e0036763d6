"""The input line: editing, history, completion of commands, several lines."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from prompt_toolkit import PromptSession
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import FileHistory, InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

MARK = "> "
MORE = "… "

keys = KeyBindings()


@keys.add("enter")
def _accept(event: KeyPressEvent) -> None:
    """Enter sends; the line breaks of a pasted text do not."""
    event.current_buffer.validate_and_handle()


@keys.add("escape", "enter")
def _new_line(event: KeyPressEvent) -> None:
    event.current_buffer.insert_text("\n")


class Prompter:
    """Asks for one turn at a time. `about` gives the toolbar's text."""

    def __init__(
        self,
        commands: Sequence[str],
        values: Callable[[str], list[str]],
        about: Callable[[], str],
        history: Path | None,
    ) -> None:
        self._session: PromptSession[str] = PromptSession(
            MARK,
            multiline=True,
            prompt_continuation=MORE,
            key_bindings=keys,
            history=FileHistory(str(history)) if history else InMemoryHistory(),
            completer=_Slash(commands, values),
            bottom_toolbar=about,
        )

    def read(self) -> str | None:
        """The next non-empty input; None at its end."""
        while True:
            try:
                text = self._session.prompt()
            except KeyboardInterrupt:
                continue
            except EOFError:
                return None
            if text.strip():
                return text


class _Slash(Completer):
    """Completes commands and their arguments."""

    def __init__(self, commands: Sequence[str], values: Callable[[str], list[str]]) -> None:
        self._commands = commands
        self._values = values

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterator[Completion]:
        """A question gets no completions."""
        before = document.text_before_cursor
        if not before.startswith("/") or "\n" in before:
            return
        command, space, begun = before.partition(" ")
        for name in self._values(command) if space else self._commands:
            if name.startswith(begun if space else command):
                yield Completion(name, -len(begun if space else command))
