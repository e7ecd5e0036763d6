"""Who may begin: as many runs as the engines can take, a bounded queue behind them, and for the rest a refusal at once.

A run counts as what it costs: a sequence on the engine of each member and of its judge. What is said to one model alone
counts as one, and a share of every engine is kept for that, so that panels cannot starve it. Keys take turns: of those who
wait, the one whose key was let in the longest ago is next, and where the queue is full, who has most in it makes room.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count as counting

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
Lane = tuple[str, str | None, int]
"""An ensemble or model, a key (without keys all are one), and the config: an old engine's queue holds up no new one's."""


def costs(settings: Settings, host_of: Mapping[str, str]) -> Costs:
    """What one run takes of each engine; `host_of` names the engine of each model."""
    out: dict[str, int] = {}
    for seat in settings.panel:
        out[host_of[seat.model]] = out.get(host_of[seat.model], 0) + seat.samples
    judge = host_of[settings.judge]
    out[judge] = out.get(judge, 0) + (2 if settings.analysis == "alongside" else 1)
    return out


@dataclass(slots=True, eq=False)
class _Engine:
    """One engine, however many configs it stays for. `sequences` is what it takes at once."""

    sequences: int
    used: int = 0

    def room(self, direct: bool) -> int:
        """What may be taken of it in all."""
        return self.sequences if direct else max(1, self.sequences - round(self.sequences * KEPT_FOR_DIRECT))


@dataclass(slots=True, eq=False)
class _Waiter:
    lane: Lane
    costs: Mapping[_Engine, int]
    direct: bool
    place: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)


@dataclass(slots=True)
class _Queue:
    """Who waits and who is inside, of all the configs that a server has had."""

    waiting: dict[str, int] = field(default_factory=dict)
    lanes: dict[Lane, deque[_Waiter]] = field(default_factory=dict)
    inside: set[_Waiter] = field(default_factory=set)
    turns: Iterator[int] = field(default_factory=lambda: counting(1))
    last_turn: dict[str | None, int] = field(default_factory=dict)
    run_s: float = 1.0
    refused: Counter[str] = field(default_factory=Counter)


class Admission:
    """`sequences` is what each engine takes at once; `max_waiting` how many may queue for an ensemble, or a model.

    Of these at most `max_waiting_per_key` may be of one key. `refused` counts those who found no place in the queue, or
    lost it, by ensemble or model.
    """

    def __init__(self, sequences: Mapping[str, int], max_waiting: int, max_waiting_per_key: int | None = None) -> None:
        self._engines = {name: _Engine(count) for name, count in sequences.items()}
        self._max_waiting = max_waiting
        self._max_waiting_per_key = max_waiting_per_key or max_waiting
        self._generation = 0
        self._queue = _Queue()

    @classmethod
    def of(cls, config: Config) -> "Admission":
        server, sequences = config.server, {name: model.max_num_seqs for name, model in config.models.items()}
        return cls(sequences, server.max_waiting, server.max_waiting_per_key)

    def renewed(self, config: Config, stays: Collection[str]) -> "Admission":
        """For another config: the same queue and counts, and of the engines of the models `stays` what they have under way."""
        new = Admission.of(config)
        new._queue, new._generation = self._queue, self._generation + 1
        new._engines |= {name: self._engines[name] for name in stays}
        return new

    @property
    def waiting(self) -> Mapping[str, int]:
        """By ensemble or model."""
        return self._queue.waiting

    @property
    def inside(self) -> Mapping[str, int]:
        """Who has been let in, by ensemble or model."""
        return Counter(waiter.lane[0] for waiter in self._queue.inside)

    @property
    def refused(self) -> Counter[str]:
        return self._queue.refused

    @asynccontextmanager
    async def room(self, name: str, costs: Costs, direct: bool = False, key: str | None = None) -> AsyncIterator[None]:
        """From when there is room until the caller is done. Raises Overloaded if too many wait already for `name`.

        Also raises it for a caller that waits, if it has to make room for a key with fewer.
        """
        self.require_place(name, key)
        self._make_place(name)
        place = asyncio.get_running_loop().create_future()
        waiter = _Waiter((name, key, self._generation), self._possible(costs, direct), direct, place)
        self._enqueue(waiter)
        self._let_in()
        try:
            await waiter.place
        except asyncio.CancelledError:
            # Who was let in at the same moment has been counted; who had to make room waits no more.
            if waiter in self._queue.inside:
                self._leave(waiter)
            elif waiter in self._queue.lanes.get(waiter.lane, ()):
                self._unqueue(waiter)
                self._let_in()
            raise
        began = time.monotonic()
        try:
            yield
        finally:
            self._queue.run_s += 0.1 * (time.monotonic() - began - self._queue.run_s)
            self._leave(waiter)

    def require_place(self, name: str, key: str | None = None) -> None:
        """Raises Overloaded if there is none in the queue, nor anybody who would have to make some."""
        own = len(self._queue.lanes.get((name, key, self._generation), ()))
        waiting = self._queue.waiting.get(name, 0)
        if key is not None and own >= self._max_waiting_per_key:
            raise self._overloaded(name, f"{own} requests of this key wait already, which is its share")
        if waiting >= self._max_waiting and len(self._longest(name)) < own + 2:
            raise self._overloaded(name, f"{waiting} wait already")

    def _make_place(self, name: str) -> None:
        """Where the queue is full, the last to have come of the key that has most in it goes."""
        if self._queue.waiting.get(name, 0) < self._max_waiting:
            return
        last = self._longest(name)[-1]
        self._unqueue(last)
        # Who goes away at this moment needs to be told nothing.
        if not last.place.done():
            last.place.set_exception(
                self._overloaded(name, "others came while this key had more than its share waiting")
            )

    def _longest(self, name: str) -> deque[_Waiter]:
        return max((lane for (of, *_), lane in self._queue.lanes.items() if of == name), key=len)

    def _enqueue(self, waiter: _Waiter) -> None:
        self._queue.lanes.setdefault(waiter.lane, deque()).append(waiter)
        name = waiter.lane[0]
        self._queue.waiting[name] = self._queue.waiting.get(name, 0) + 1

    def _unqueue(self, waiter: _Waiter) -> None:
        lane = self._queue.lanes[waiter.lane]
        lane.remove(waiter)
        if not lane:
            del self._queue.lanes[waiter.lane]
        self._queue.waiting[waiter.lane[0]] -= 1

    def _possible(self, costs: Costs, direct: bool) -> Mapping[_Engine, int]:
        """A run that takes more than there is takes all of it, alone."""
        of_engines = [(self._engines[model], count) for model, count in costs.items()]
        return {engine: min(count, engine.room(direct)) for engine, count in of_engines}

    def _fits(self, waiter: _Waiter) -> bool:
        return all(engine.used + n <= engine.room(waiter.direct) for engine, n in waiter.costs.items())

    def _let_in(self) -> None:
        """The heads of the queues as far as they fit: keys in turn, those of one key in the order in which they came."""
        while (fitting := self._next()) is not None:
            self._enter(fitting)

    def _next(self) -> _Waiter | None:
        blocked: set[_Engine] = set()
        now = time.monotonic()
        for head in sorted((lane[0] for lane in self._queue.lanes.values()), key=self._rank):
            if not blocked & set(head.costs) and self._fits(head):
                return head
            if now - head.since > PATIENCE_S:
                blocked |= set(head.costs)
        return None

    def _rank(self, head: _Waiter) -> tuple[int, float]:
        return self._queue.last_turn.get(head.lane[1], 0), head.since

    def _enter(self, waiter: _Waiter) -> None:
        self._unqueue(waiter)
        self._queue.last_turn[waiter.lane[1]] = next(self._queue.turns)
        for engine, count in waiter.costs.items():
            engine.used += count
        self._queue.inside.add(waiter)
        if not waiter.place.done():
            waiter.place.set_result(None)

    def _leave(self, waiter: _Waiter) -> None:
        for engine, count in waiter.costs.items():
            engine.used -= count
        self._queue.inside.discard(waiter)
        self._let_in()

    def _overloaded(self, name: str, why: str) -> Overloaded:
        """A refusal, counted; to be tried again when those who wait now will have begun, if runs last as long as they did of late."""
        self.refused[name] += 1
        after_s = round(self._queue.run_s * self._queue.waiting.get(name, 0) / max(1, len(self._queue.inside)))
        return Overloaded(f"{name} is busy, and {why}: try again later.", min(MAX_RETRY_AFTER_S, max(1, after_s)))
