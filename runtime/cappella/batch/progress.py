"""How far batches are: of each engine the calls that have finished, wait and run, and how long the rest may take.

It is kept in memory: after a restart it counts from zero.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from time import monotonic

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.batch.phases import is_within
from cappella.batch.types import Batch

TOKENS_WINDOW_S = 10.0
CALLS_WINDOW_S = 60.0
MIN_ROWS = 10
"""So many rows have ended before the calls of the others are estimated by theirs."""
MIN_CALLS = 5
"""So many calls of an engine have ended before its rate is believed."""


class EngineProgress(TypedDict):
    """The calls of a batch on one engine, `done` since the server started; `tokens_per_s` is of the last seconds."""

    model: str
    done: int
    waiting: int
    running: int
    tokens_per_s: float | None


class BatchProgress(TypedDict):
    """`remaining_s` is null until it can be believed; `paused` is why the batch does not go on now."""

    phases: list[EngineProgress]
    remaining_s: float | None
    paused: str | None


Groups = Mapping[str, int | None]
"""The swap group of each engine; None for one that is always awake."""


class Pace:
    """How fast calls end while any is running; the time between is not counted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._began = self._worked_s = 0.0
        self._ends: deque[tuple[float, int]] = deque([(0.0, 0)])
        self.running = 0

    def begin(self) -> None:
        if not self.running:
            self._began = self._clock()
        self.running += 1

    def leave(self) -> None:
        self.running -= 1
        if not self.running:
            self._worked_s += self._clock() - self._began

    def finished(self, tokens: int) -> None:
        """One call has ended well."""
        self._ends.append((self._now_s, tokens))
        while self._ends[1][0] < self._now_s - CALLS_WINDOW_S:
            self._ends.popleft()

    @property
    def calls_per_s(self) -> float | None:
        """None until it can be believed."""
        since, ended = self._ended_within(CALLS_WINDOW_S)
        return len(ended) / (self._now_s - since) if len(ended) >= MIN_CALLS and self._now_s > since else None

    @property
    def tokens_per_s(self) -> float | None:
        """Of calls that ended in the last seconds; None while none runs."""
        since, ended = self._ended_within(TOKENS_WINDOW_S)
        is_known = self.running and ended and self._now_s > since
        return round(sum(ended) / (self._now_s - since), 1) if is_known else None

    @property
    def _now_s(self) -> float:
        """The time at work so far."""
        return self._worked_s + (self._clock() - self._began if self.running else 0.0)

    def _ended_within(self, window_s: float) -> tuple[float, list[int]]:
        """The tokens of the calls that ended in the window, and when the one before them did."""
        begin = self._now_s - window_s
        since = max((at for at, _ in self._ends if at < begin), default=0.0)
        return since, [tokens for at, tokens in self._ends if at > since]


@dataclass(slots=True)
class _Engine:
    """The calls of one batch on one engine; `of_ended` and `of_open` are those of rows that have ended, or not."""

    pace: Pace
    waiting: int = 0
    done: int = 0
    of_ended: int = 0
    of_open: int = 0


class Meter:
    """How far one batch is."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._engines: dict[str, _Engine] = {}
        self._groups: Groups = {}
        self._ended_rows = 0
        self._starting: Counter[str] = Counter()

    @contextmanager
    def row(self, groups: Groups) -> Iterator["RowMeter"]:
        """One row that is answered now, or tried to."""
        self._groups = groups
        meter = RowMeter(self._of, self._starting)
        try:
            yield meter
        finally:
            self._ended_rows += meter.has_ended
            for name, calls in meter.calls.items():
                self._of(name).of_open -= calls
                self._of(name).of_ended += calls if meter.has_ended else 0

    def phases(self) -> list[EngineProgress]:
        """What is shown of each engine, in the order of the config."""
        called = [(name, self._engines[name]) for name in self._groups if name in self._engines]
        return [
            {
                "model": name,
                "done": each.done,
                "waiting": each.waiting,
                "running": each.pace.running,
                "tokens_per_s": each.pace.tokens_per_s,
            }
            for name, each in called
        ]

    @property
    def starting(self) -> str | None:
        """Which tool servers rows wait for; None where none does."""
        names = ", ".join(sorted(name for name, rows in self._starting.items() if rows))
        return f"It waits for tools to start: {names}." if names else None

    def remaining_s(self, rows_left: int) -> float | None:
        """The time for so many rows, those in flight included; None until it can be believed.

        The engines of a swap group work side by side, as do those that are always awake; the groups take turns.
        """
        slowest: dict[int | None, float] = defaultdict(float)
        for name, each in self._engines.items():
            left, rate = self._calls_left(each, rows_left), each.pace.calls_per_s
            if left is None or (left and rate is None):
                return None
            group = self._groups.get(name)
            slowest[group] = max(slowest[group], left / rate if rate else 0.0)
        always = slowest.pop(None, 0.0)
        return round(max(always, sum(slowest.values())), 1) if self._engines else None

    def _calls_left(self, engine: _Engine, rows_left: int) -> float | None:
        if self._ended_rows < MIN_ROWS:
            return None
        expected = engine.of_ended / self._ended_rows * rows_left - engine.of_open
        return max(expected, float(engine.waiting + engine.pace.running))

    def _of(self, name: str) -> _Engine:
        if name not in self._engines:
            self._engines[name] = _Engine(Pace(self._clock))
        return self._engines[name]


class RowMeter:
    """Counts the calls of one row on each engine. `has_ended` is set once no more come."""

    def __init__(self, of: Callable[[str], _Engine], starting: Counter[str]) -> None:
        self._of = of
        self._starting = starting
        self.calls: Counter[str] = Counter()
        self.has_ended = False

    @contextmanager
    def waits(self, engine: str) -> Iterator[None]:
        """A call waits for its place."""
        found = self._of(engine)
        found.waiting += 1
        try:
            yield
        finally:
            found.waiting -= 1

    @contextmanager
    def waits_for_tools(self, servers: Sequence[str]) -> Iterator[None]:
        """The row waits until these have started."""
        self._starting.update(servers)
        try:
            yield
        finally:
            self._starting.subtract(servers)

    @contextmanager
    def runs(self, engine: str) -> Iterator[None]:
        """A call is made."""
        pace = self._of(engine).pace
        pace.begin()
        try:
            yield
        finally:
            pace.leave()

    def finished(self, engine: str, tokens: int) -> None:
        """A call was made."""
        self._of(engine).done += 1
        self._of(engine).pace.finished(tokens)
        self.replayed(engine)

    def replayed(self, engine: str) -> None:
        """A call was found in the store."""
        self._of(engine).of_open += 1
        self.calls[engine] += 1


class Progress:
    """How far the batches are that are answered now."""

    def __init__(self) -> None:
        self._meters: dict[str, Meter] = {}

    def meter(self, batch_id: str) -> Meter:
        return self._meters.setdefault(batch_id, Meter())

    def forget(self, batch_id: str) -> None:
        self._meters.pop(batch_id, None)

    def told(self, batch: Batch, hours: str | None) -> BatchProgress | None:
        """As the batch object has it, where batches work in these `hours`; None of a batch that has ended."""
        if batch.is_finished:
            return None
        closed = None if is_within(hours, datetime.now().time()) else f"It goes on between {hours} (server.batch.when)."
        meter = self._meters.get(batch.id)
        paused = batch.paused or closed or (meter.starting if meter else None)
        left = batch.total - batch.completed - batch.failed
        remaining_s = meter.remaining_s(left) if meter and not paused else None
        return {"phases": meter.phases() if meter else [], "remaining_s": remaining_s, "paused": paused}
