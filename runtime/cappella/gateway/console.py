"""How `cappella serve` says what it does: to a person, or as events in a log of JSON lines."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from cappella.config import Config
from cappella.engines.status import EngineState, EngineStatus, Failure
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

    def log(self, event: str, message: str, **facts: Any) -> None:
        """One thing that happened while it serves, with its time."""
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

    def log(self, event: str, message: str, **facts: Any) -> None:
        console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", markup=False, soft_wrap=True)

    def refused(self, text: str) -> None:
        guard.to_stderr(text)


class ForPrograms:
    """Lines of JSON on standard error."""

    for_programs = True
    draws = False

    def say(self, event: str, message: str, shown: RenderableType | None = None, **facts: Any) -> None:
        logs.log_event(event, message, facts)

    def fail(self, event: str, message: str, last_words: Sequence[str] = (), **facts: Any) -> None:
        logs.log_event(event, message, {**facts, "last_words": last_words}, logging.ERROR)

    def log(self, event: str, message: str, **facts: Any) -> None:
        logs.log_event(event, message, facts)

    def refused(self, text: str) -> None:
        logs.log_event("sealed", text, {}, logging.WARNING)


class Followed(Protocol):
    """The engines of one config."""

    @property
    def config(self) -> Config: ...

    @property
    def statuses(self) -> Mapping[str, EngineStatus]: ...


async def follow(
    current: Callable[[], Followed], announcer: Announcer, interval_s: float, ended: Callable[[], bool] = lambda: False
) -> None:
    """Until it has ended, say what becomes of the engines, and of each ensemble when it stops or starts to answer."""
    shown = {name: (status.stage, status.restarts) for name, status in current().statuses.items()}
    changes, answering = Changes(current().statuses), _answering(current())
    while True:
        await asyncio.sleep(interval_s)
        if ended():
            return
        statuses = current().statuses
        if announcer.for_programs:
            tell_stages(announcer, shown, statuses)
        else:
            for line in changes.look(statuses):
                announcer.log("engine", line)
        now = _answering(current())
        for name in (name for name, answers in now.items() if answers != answering.get(name, False)):
            does = "answers" if now[name] else "cannot answer: its judge or its quorum is down"
            announcer.log("ensemble", f"cappella/{name} {does}", ensemble=name, answers=now[name])
        answering = now


def _answering(followed: Followed) -> Mapping[str, bool]:
    return followed.config.answering(name for name, status in followed.statuses.items() if status.accepts_requests)


class Changes:
    """What has become of engines since the last look: falls, recoveries, restarts, and those that were given up."""

    def __init__(self, statuses: Mapping[str, EngineStatus]) -> None:
        self._known = {name: _Seen.of(status) for name, status in statuses.items()}

    def look(self, statuses: Mapping[str, EngineStatus]) -> list[str]:
        """A line for each change."""
        now = {name: _Seen.of(status) for name, status in statuses.items()}
        lines = [line for name, seen in now.items() for line in seen.since(name, self._known.get(name))]
        self._known = now
        return lines


@dataclass(frozen=True, slots=True)
class _Seen:
    """An engine at one look."""

    state: EngineState
    stage: str
    restarts: int
    restarts_asked: int
    failure: Failure | None

    @classmethod
    def of(cls, status: EngineStatus) -> "_Seen":
        failure = status.last_failure
        return cls(status.state, status.stage, status.restarts, status.restarts_asked, failure)

    def since(self, name: str, before: "_Seen | None") -> Iterator[str]:
        if before is None:
            before = _Seen("waiting", "", self.restarts, self.restarts_asked, self.failure)
        fell = self.failure is not None and (before.failure is None or self.failure.time != before.failure.time)
        if fell and self.failure is not None:
            log = f" (log: {self.failure.log})" if self.failure.log else ""
            yield f"{name} fell: {self.failure.reason}{log}"
        if self.restarts_asked > before.restarts_asked:
            yield f"{name} restarts, as an operator asked"
        if self.state == before.state and not fell:
            return
        if self.state == "restarting" and fell:
            yield f"{name} restarts ({self.restarts} so far)"
        elif self.state == "failed":
            yield f"{name} {self.stage}"
        elif self.state == "unhealthy":
            yield f"{name} is unhealthy and takes no calls: {self.stage}"
        elif self.state == "stopped":
            yield f"{name} was put to sleep by an operator"
        elif self.state == "ready" and before.state != "asleep":
            yield f"{name} is ready"


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
