"""Who may begin: as many runs as the engines can take, a bounded queue behind them, and for the rest a refusal at once.

A run counts as what it costs: a sequence on the engine of each member and of its judge. What is said to one model alone
counts as one, and a share of every engine is kept for that, so that panels cannot starve it. Keys take turns: of those who
wait, the one whose key was let in the longest ago is next, and where the queue is full, who has most in it makes room.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cappella.config import Config
from cappella.config.options import Settings
from cappella.errors import Overloaded

KEPT_FOR_DIRECT = 0.125
"""Of each engine's sequences, for what is said to one model alone."""
PATIENCE_S = 1.0
"""After so long in the queue nobody passes who would take what the one in front waits for."""
MAX_RETRY_AFTER_S = 60

Costs = Mapping[str, int]
"""Sequences by engine."""
Lane = tuple[str, str | None]
"""An ensemble or model, and a key; without keys all are one."""


def costs(settings: Settings, host_of: Mapping[str, str]) -> Costs:
    """What one run takes of each engine; `host_of` names the engine of each model."""
    out: dict[str, int] = {}
    for seat in settings.panel:
        out[host_of[seat.model]] = out.get(host_of[seat.model], 0) + seat.samples
    judge = host_of[settings.judge]
    out[judge] = out.get(judge, 0) + (2 if settings.analysis == "alongside" else 1)
    return out


@dataclass(slots=True, eq=False)
class _Waiter:
    lane: Lane
    costs: Costs
    direct: bool
    place: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)


class Admission:
    """`sequences` is what each engine takes at once; `max_waiting` how many may queue for an ensemble, or a model.

    Of these at most `max_waiting_per_key` may be of one key. `refused` counts those who found no place in the queue, or
    lost it, by ensemble or model.
    """

    def __init__(self, sequences: Mapping[str, int], max_waiting: int, max_waiting_per_key: int | None = None) -> None:
        self._sequences = sequences
        self._max_waiting = max_waiting
        self._max_waiting_per_key = max_waiting_per_key or max_waiting
        self._used = dict.fromkeys(sequences, 0)
        self._waiting: dict[str, int] = {}
        self._lanes: dict[Lane, deque[_Waiter]] = {}
        self._inside: set[_Waiter] = set()
        self._turns = 0
        self._last_turn: dict[str | None, int] = {}
        self._run_s = 1.0
        self.refused: Counter[str] = Counter()

    @classmethod
    def of(cls, config: Config) -> "Admission":
        server, sequences = config.server, {name: model.max_num_seqs for name, model in config.models.items()}
        return cls(sequences, server.max_waiting, server.max_waiting_per_key)

    @property
    def waiting(self) -> Mapping[str, int]:
        """By ensemble or model."""
        return self._waiting

    @property
    def inside(self) -> Mapping[str, int]:
        """Who has been let in, by ensemble or model."""
        return Counter(waiter.lane[0] for waiter in self._inside)

    @asynccontextmanager
    async def room(self, name: str, costs: Costs, direct: bool = False, key: str | None = None) -> AsyncIterator[None]:
        """From when there is room until the caller is done. Raises Overloaded if too many wait already for `name`.

        Also raises it for a caller that waits, if it has to make room for a key with fewer.
        """
        self.require_place(name, key)
        self._make_place(name)
        place = asyncio.get_running_loop().create_future()
        waiter = _Waiter((name, key), self._possible(costs, direct), direct, place)
        self._queue(waiter)
        self._let_in()
        try:
            await waiter.place
        except asyncio.CancelledError:
            # Who was let in at the same moment has been counted; who had to make room waits no more.
            if waiter in self._inside:
                self._leave(waiter)
            elif waiter in self._lanes.get(waiter.lane, ()):
                self._unqueue(waiter)
                self._let_in()
            raise
        began = time.monotonic()
        try:
            yield
        finally:
            self._run_s += 0.1 * (time.monotonic() - began - self._run_s)
            self._leave(waiter)

    def require_place(self, name: str, key: str | None = None) -> None:
        """Raises Overloaded if there is none in the queue, nor anybody who would have to make some."""
        own, waiting = len(self._lanes.get((name, key), ())), self._waiting.get(name, 0)
        if key is not None and own >= self._max_waiting_per_key:
            raise self._overloaded(name, f"{own} requests of this key wait already, which is its share")
        if waiting >= self._max_waiting and len(self._longest(name)) < own + 2:
            raise self._overloaded(name, f"{waiting} wait already")

    def _make_place(self, name: str) -> None:
        """Where the queue is full, the last to have come of the key that has most in it goes."""
        if self._waiting.get(name, 0) < self._max_waiting:
            return
        last = self._longest(name)[-1]
        self._unqueue(last)
        # Who goes away at this moment needs to be told nothing.
        if not last.place.done():
            last.place.set_exception(
                self._overloaded(name, "others came while this key had more than its share waiting")
            )

    def _longest(self, name: str) -> deque[_Waiter]:
        return max((lane for (of, _), lane in self._lanes.items() if of == name), key=len)

    def _queue(self, waiter: _Waiter) -> None:
        self._lanes.setdefault(waiter.lane, deque()).append(waiter)
        name = waiter.lane[0]
        self._waiting[name] = self._waiting.get(name, 0) + 1

    def _unqueue(self, waiter: _Waiter) -> None:
        lane = self._lanes[waiter.lane]
        lane.remove(waiter)
        if not lane:
            del self._lanes[waiter.lane]
        self._waiting[waiter.lane[0]] -= 1

    def _possible(self, costs: Costs, direct: bool) -> Costs:
        """A run that takes more than there is takes all of it, alone."""
        return {model: min(count, self._most(model, direct)) for model, count in costs.items()}

    def _most(self, model: str, direct: bool) -> int:
        whole = self._sequences[model]
        return whole if direct else max(1, whole - round(whole * KEPT_FOR_DIRECT))

    def _fits(self, waiter: _Waiter) -> bool:
        return all(self._used[model] + n <= self._most(model, waiter.direct) for model, n in waiter.costs.items())

    def _let_in(self) -> None:
        """The heads of the queues as far as they fit: keys in turn, those of one key in the order in which they came."""
        while (fitting := self._next()) is not None:
            self._enter(fitting)

    def _next(self) -> _Waiter | None:
        blocked: set[str] = set()
        now = time.monotonic()
        for head in sorted((lane[0] for lane in self._lanes.values()), key=self._rank):
            if not blocked & set(head.costs) and self._fits(head):
                return head
            if now - head.since > PATIENCE_S:
                blocked |= set(head.costs)
        return None

    def _rank(self, head: _Waiter) -> tuple[int, float]:
        return self._last_turn.get(head.lane[1], 0), head.since

    def _enter(self, waiter: _Waiter) -> None:
        self._unqueue(waiter)
        self._turns += 1
        self._last_turn[waiter.lane[1]] = self._turns
        for model, count in waiter.costs.items():
            self._used[model] += count
        self._inside.add(waiter)
        if not waiter.place.done():
            waiter.place.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        for model, count in waiter.costs.items():
            self._used[model] -= count
        self._inside.discard(waiter)
        self._let_in()

    def _overloaded(self, name: str, why: str) -> Overloaded:
        """A refusal, counted; to be tried again when those who wait now will have begun, if runs last as long as they did of late."""
        self.refused[name] += 1
        after_s = round(self._run_s * self._waiting.get(name, 0) / max(1, len(self._inside)))
        return Overloaded(f"{name} is busy, and {why}: try again later.", min(MAX_RETRY_AFTER_S, max(1, after_s)))
