"""Output of `cappella serve`: text for a person, or a log of JSON lines."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from cappella.config import Config
from cappella.engines.reconciler import ASLEEP
from cappella.engines.status import EngineState, EngineStatus, Failure
from cappella.sealing import guard
from cappella.telemetry import logs

console = Console(stderr=True, highlight=False)


ReportedStages = dict[str, tuple[str, int]]
"""By engine: the stage that was reported last, and the restarts by then."""


class Reporter(Protocol):
    """An output. `can_redraw` is true on a terminal, where progress bars are drawn; `writes_json` where programs read it."""

    @property
    def can_redraw(self) -> bool: ...

    @property
    def writes_json(self) -> bool: ...

    def report(self, event: str, message: str, shown: RenderableType | None = None, **fields: Any) -> None:
        """One event: `message`, or `shown` on a terminal; `fields` are for programs."""
        ...

    def report_failure(self, event: str, message: str, last_words: Sequence[str] = (), **fields: Any) -> None:
        """One failure, with the last lines of the log at `fields["log"]` that explains it."""
        ...

    def log(self, event: str, message: str, **fields: Any) -> None:
        """One event while the server runs, with its time."""
        ...

    def report_blocked(self, text: str) -> None:
        """A connection that this process's guard blocked."""
        ...


class TextReporter:
    """Writes text to standard error."""

    writes_json = False

    @property
    def can_redraw(self) -> bool:
        return console.is_terminal

    def report(self, event: str, message: str, shown: RenderableType | None = None, **fields: Any) -> None:
        if shown is None:
            console.print(message, markup=False, soft_wrap=True)
        else:
            console.print(shown, soft_wrap=isinstance(shown, Text))

    def report_failure(self, event: str, message: str, last_words: Sequence[str] = (), **fields: Any) -> None:
        console.print(Text(message, "red"), soft_wrap=True)
        if last_words:
            lines = "\n".join(f"  {line}" for line in last_words)
            console.print(f"From {fields['log']}:\n{lines}", markup=False, soft_wrap=True)

    def log(self, event: str, message: str, **fields: Any) -> None:
        console.print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {message}", markup=False, soft_wrap=True)

    def report_blocked(self, text: str) -> None:
        guard.to_stderr(text)


class JsonReporter:
    """Writes lines of JSON to standard error."""

    writes_json = True
    can_redraw = False

    def report(self, event: str, message: str, shown: RenderableType | None = None, **fields: Any) -> None:
        logs.log_event(event, message, fields)

    def report_failure(self, event: str, message: str, last_words: Sequence[str] = (), **fields: Any) -> None:
        logs.log_event(event, message, {**fields, "last_words": last_words}, logging.ERROR)

    def log(self, event: str, message: str, **fields: Any) -> None:
        logs.log_event(event, message, fields)

    def report_blocked(self, text: str) -> None:
        logs.log_event("sealed", text, {}, logging.WARNING)


class EngineGroup(Protocol):
    """The engines of one config."""

    @property
    def config(self) -> Config: ...

    @property
    def statuses(self) -> Mapping[str, EngineStatus]: ...

    @property
    def replica_statuses(self) -> Mapping[str, EngineStatus]: ...


async def follow(
    current: Callable[[], EngineGroup], reporter: Reporter, interval_s: float, ended: Callable[[], bool] = lambda: False
) -> None:
    """Report changes of engines, and each ensemble that starts or stops answering, until `ended` is true."""
    shown = {name: (status.stage, status.restarts) for name, status in _all_statuses(current()).items()}
    changes, answering = ChangeDetector(_all_statuses(current())), _answering(current())
    while True:
        await asyncio.sleep(interval_s)
        if ended():
            return
        statuses = _all_statuses(current())
        if reporter.writes_json:
            report_stages(reporter, shown, statuses)
        else:
            for line in changes.update(statuses):
                reporter.log("engine", line)
        now = _answering(current())
        for name in (name for name, answers in now.items() if answers != answering.get(name, False)):
            report_ability(reporter, name, now[name])
        answering = now


def _all_statuses(group: EngineGroup) -> Mapping[str, EngineStatus]:
    """Those of models, and those of each of their replicas."""
    return {**group.statuses, **group.replica_statuses}


def report_ability(reporter: Reporter, ensemble: str, answers: bool) -> None:
    """Report that an ensemble begins or ceases to answer."""
    does = "answers" if answers else "cannot answer: its judge or too many members are down"
    reporter.log("ensemble", f"cappella/{ensemble} {does}", ensemble=ensemble, answers=answers)


def _answering(group: EngineGroup) -> Mapping[str, bool]:
    return group.config.answering(name for name, status in group.statuses.items() if status.accepts_requests)


class ChangeDetector:
    """Finds failures, recoveries and restarts of engines between two looks at their statuses.

    While the server is `starting`, that an engine is ready for the first time is no recovery.
    """

    def __init__(self, statuses: Mapping[str, EngineStatus], starting: bool = False) -> None:
        self._starting = starting
        self._snapshots = {name: _Snapshot.of(status) for name, status in statuses.items()}

    def update(self, statuses: Mapping[str, EngineStatus]) -> list[str]:
        """A line for each change since the last call."""
        now = {name: _Snapshot.of(status) for name, status in statuses.items()}
        lines = [
            line
            for name, snapshot in now.items()
            if snapshot.failure or not self._starting
            for line in snapshot.changes_since(name, self._snapshots.get(name))
        ]
        self._snapshots = now
        return lines


@dataclass(frozen=True, slots=True)
class _Snapshot:
    """The status of an engine at one time."""

    state: EngineState
    stage: str
    restarts: int
    restarts_asked: int
    failure: Failure | None
    wakes: int
    last_wake_s: float | None

    @classmethod
    def of(cls, status: EngineStatus) -> "_Snapshot":
        counts = status.restarts, status.restarts_asked, status.last_failure, status.wakes, status.last_wake_s
        return cls(status.state, status.stage, *counts)

    def changes_since(self, name: str, before: "_Snapshot | None") -> Iterator[str]:
        if before is None:
            before = replace(self, state="waiting", stage="")
        failed = self.failure is not None and (before.failure is None or self.failure.time != before.failure.time)
        if failed and self.failure is not None:
            log = f" (log: {self.failure.log})" if self.failure.log else ""
            yield f"{name} failed: {self.failure.reason}{log}"
        if self.restarts_asked > before.restarts_asked:
            yield f"{name} restarts: an operator requested it"
        if self.wakes > before.wakes:
            yield f"{name} woke for a call, in {self.last_wake_s or 0:.1f} s (wake {self.wakes})"
        if self.state == before.state and not failed:
            return
        if self.state == "restarting" and failed:
            yield f"{name} restarts ({self.restarts} so far)"
        elif self.state == "failed":
            yield f"{name} {self.stage}"
        elif self.state == "unhealthy":
            yield f"{name} is unhealthy and accepts no requests: {self.stage}"
        elif self.state == "stopped":
            yield f"{name} was put to sleep by an operator"
        elif self.state == "asleep" and self.stage == ASLEEP["idle"]:
            yield f"{name} sleeps: no call for a while"
        elif self.state == "ready" and before.state != "asleep":
            yield f"{name} is ready"


@contextmanager
def stage_display(reporter: Reporter, statuses: Mapping[str, EngineStatus]) -> Iterator[Callable[[], None]]:
    """Yields a function that shows the progress of each engine: a bar on a terminal, elsewhere a line for each new stage."""
    if not reporter.can_redraw:
        shown: ReportedStages = {}
        yield lambda: report_stages(reporter, shown, statuses)
        return
    columns = (TextColumn("{task.description:<14}"), BarColumn(), TextColumn("{task.fields[stage]}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:
        bars = {name: progress.add_task(name, total=1.0, stage="") for name in statuses}
        yield lambda: _draw(progress, bars, statuses)


def report_stages(reporter: Reporter, shown: ReportedStages, statuses: Mapping[str, EngineStatus]) -> None:
    """Report each engine whose stage or count of restarts differs from what was `shown` last."""
    for name, status in statuses.items():
        now = (status.stage, status.restarts)
        if shown.get(name) != now:
            shown[name] = now
            counts = {"restarts": status.restarts, "wakes": status.wakes, "last_wake_s": status.last_wake_s}
            fields: Any = {"state": status.state, **counts, "reason": status.reason}
            reporter.report("engine", f"{name}: {status.summary}", model=name, **fields)


def _draw(progress: Progress, bars: Mapping[str, TaskID], statuses: Mapping[str, EngineStatus]) -> None:
    for name, status in statuses.items():
        if not progress.tasks[bars[name]].finished:
            progress.update(bars[name], completed=status.progress, stage=status.summary)
