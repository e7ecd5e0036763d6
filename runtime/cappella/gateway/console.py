"""How `cappella serve` says what it does: to a person, or as events in a log of JSON lines."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from cappella.engines.status import EngineStatus
from cappella.sealing import guard
from cappella.telemetry import logs

console = Console(stderr=True, highlight=False)


Shown = dict[str, tuple[str, int]]
"""By engine: the stage that was said last, and after how many restarts."""


class Announcer(Protocol):
    """`draws` says that what was said can be drawn anew, as bars are; `for_programs` that a program reads it."""

    @property
    def draws(self) -> bool: ...

    @property
    def for_programs(self) -> bool: ...

    def say(self, event: str, message: str, shown: RenderableType | None = None, **facts: Any) -> None:
        """One thing that happened, in plain words, or as `shown` to a person; `facts` are for programs."""
        ...

    def fail(self, event: str, message: str, last_words: Sequence[str] = (), **facts: Any) -> None:
        """One thing that went wrong, and the end of the log that says why."""
        ...

    def refused(self, text: str) -> None:
        """What the guard of this process let nobody do."""
        ...


class ForPeople:
    """Text on standard error."""

    for_programs = False

    @property
    def draws(self) -> bool:
        return console.is_terminal

    def say(self, event: str, message: str, shown: RenderableType | None = None, **facts: Any) -> None:
        if shown is None:
            console.print(message, markup=False, soft_wrap=True)
        else:
            console.print(shown, soft_wrap=isinstance(shown, Text))

    def fail(self, event: str, message: str, last_words: Sequence[str] = (), **facts: Any) -> None:
        console.print(Text(message, "red"), soft_wrap=True)
        if last_words:
            lines = "\n".join(f"  {line}" for line in last_words)
            console.print(f"From {facts['log']}:\n{lines}", markup=False, soft_wrap=True)

    def refused(self, text: str) -> None:
        guard.to_stderr(text)


class ForPrograms:
    """Lines of JSON on standard error."""

    for_programs = True
    draws = False

    def say(self, event: str, message: str, shown: RenderableType | None = None, **facts: Any) -> None:
        logs.tell(event, message, facts)

    def fail(self, event: str, message: str, last_words: Sequence[str] = (), **facts: Any) -> None:
        logs.tell(event, message, {**facts, "last_words": last_words}, logging.ERROR)

    def refused(self, text: str) -> None:
        logs.tell("sealed", text, {}, logging.WARNING)


@contextmanager
def stages(announcer: Announcer, statuses: Mapping[str, EngineStatus]) -> Iterator[Callable[[], None]]:
    """A function that shows how far each engine is: a bar on a terminal, elsewhere a line for each new stage."""
    if not announcer.draws:
        shown: Shown = {}
        yield lambda: tell_stages(announcer, shown, statuses)
        return
    columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.fields[stage]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = {name: progress.add_task(name, total=1.0, stage="") for name in statuses}
        yield lambda: _draw(progress, bars, statuses)


def tell_stages(announcer: Announcer, shown: Shown, statuses: Mapping[str, EngineStatus]) -> None:
    """A line for each engine whose stage is not the one that was `shown`, or not of the same life."""
    for name, status in statuses.items():
        now = (status.stage, status.restarts)
        if shown.get(name) != now:
            shown[name] = now
            facts: Any = {"state": status.state, "restarts": status.restarts, "reason": status.reason}
            announcer.say("engine", f"{name}: {status.summary}", model=name, **facts)


def _draw(progress: Progress, bars: Mapping[str, TaskID], statuses: Mapping[str, EngineStatus]) -> None:
    for name, status in statuses.items():
        if not progress.tasks[bars[name]].finished:
            progress.update(bars[name], completed=status.progress, stage=status.summary)
