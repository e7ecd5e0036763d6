"""Admission control: as many runs as the engines have sequences for, a bounded queue, and Overloaded beyond that.

A run costs a sequence on the engine of each member and of its judge, a direct call of one model one for each answer. A
share of each engine is reserved for direct calls, and one for runs, so that neither can starve the other. Keys are served
in turn: the next is the waiting key that was admitted longest ago, and when the queue is full, the key with most requests
in it loses its last one. While other keys wait for an engine, no key gets more than its equal share of it.
"""

import asyncio
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count as counting

from cappella.config import Config
from cappella.errors import Overloaded, QueueTimeout, RequestError
from cappella.gateway.engine_sequences import EngineSequences

MAX_OVERTAKING_S = 1.0
"""After this time at the head of its lane, no other request may take sequences of engines that a request waits for."""
MAX_RETRY_AFTER_S = 60
LOOK_AGAIN_S = 1.0
"""So long do requests wait for room that comes without the end of another one, as when a replica comes back."""

Costs = Mapping[str, int]
"""The number of sequences, by engine."""
MaxCalls = Mapping[str, Callable[[], int]]
"""What each engine can run at once now, by its name; see `Deployment.max_calls`."""
Lane = tuple[str, str | None, int]
"""An ensemble or model, a key (None without keys), and the number of the config, so that old requests block no new ones."""


@asynccontextmanager
async def in_time(slot: AbstractAsyncContextManager[None], timeout_s: float, limit: str) -> AsyncIterator[None]:
    """Enters `slot`, which has to be free within `timeout_s`. Raises QueueTimeout, which names the `limit` in the config."""
    async with AsyncExitStack() as stack:
        try:
            async with asyncio.timeout(timeout_s):
                await stack.enter_async_context(slot)
        except TimeoutError as error:
            raise QueueTimeout(f"No engine was free in time ({limit}). Try again later.") from error
        yield


@dataclass(slots=True, eq=False)
class _Waiter:
    lane: Lane
    costs: Mapping[EngineSequences, int]
    direct: bool
    admitted: asyncio.Future[None]
    since: float = field(default_factory=time.monotonic)

    @property
    def key(self) -> str | None:
        return self.lane[1]

    @property
    def fits(self) -> bool:
        return all(engine.fits(count, self.direct) for engine, count in self.costs.items())

    def take(self, sign: int = 1) -> None:
        """Take the sequences; with -1, give them back."""
        for engine, count in self.costs.items():
            engine.take(sign * count, self.direct, self.key)


@dataclass(slots=True)
class _Queue:
    """The waiting and the admitted requests, of all configs that the server has had."""

    waiting: dict[str, int] = field(default_factory=dict)
    lanes: dict[Lane, deque[_Waiter]] = field(default_factory=dict)
    in_flight: set[_Waiter] = field(default_factory=set)
    turns: Iterator[int] = field(default_factory=lambda: counting(1))
    last_turn: dict[str | None, int] = field(default_factory=dict)
    mean_run_s: float = 1.0
    refused: Counter[str] = field(default_factory=Counter)
    look_again: asyncio.TimerHandle | None = None


class Admission:
    """`sequences` is what each engine can run at once; at most `max_waiting` requests may queue for an ensemble or model.

    At most `max_waiting_per_key` of these may be of one key. `max_calls` tells what an engine can run now, if that changes.
    """

    def __init__(
        self,
        sequences: Mapping[str, int],
        max_waiting: int,
        max_waiting_per_key: int | None = None,
        max_calls: MaxCalls | None = None,
    ) -> None:
        now = max_calls or {}
        self._engines = {name: EngineSequences(count, now.get(name)) for name, count in sequences.items()}
        self._max_waiting = max_waiting
        self._max_waiting_per_key = max_waiting_per_key or max_waiting
        self._generation = 0
        self._queue = _Queue()

    @classmethod
    def of(cls, config: Config, max_calls: MaxCalls | None = None) -> "Admission":
        server, sequences = config.server, {name: model.max_calls for name, model in config.models.items()}
        admission = cls(sequences, server.max_waiting, server.max_waiting_per_key, max_calls)
        in_runs = {
            config.host_of[model]
            for ensemble in config.ensembles.values()
            for model in (*(each for _, each in ensemble.models), *ensemble.helpers)
        }
        for model in config.models.keys() - in_runs:
            admission._engines[model].has_runs = False
        return admission

    def renewed(self, config: Config, max_calls: MaxCalls, kept: Collection[str]) -> "Admission":
        """The admission of another config: it shares the queue and the counts, and the used sequences of the `kept` engines."""
        new = Admission.of(config, max_calls)
        new._queue, new._generation = self._queue, self._generation + 1
        new._engines |= {name: self._engines[name] for name in kept}
        return new

    @property
    def waiting(self) -> Mapping[str, int]:
        """The length of the queue, by ensemble or model."""
        return self._queue.waiting

    @property
    def in_flight(self) -> Mapping[str, int]:
        """The number of admitted requests, by ensemble or model."""
        return Counter(waiter.lane[0] for waiter in self._queue.in_flight)

    @property
    def is_busy(self) -> bool:
        """Whether any request is in flight or waits."""
        return bool(self._queue.in_flight) or any(self._queue.waiting.values())

    @property
    def held(self) -> Mapping[str, int]:
        """The number of sequences that admitted requests hold, by engine."""
        return {name: engine.used for name, engine in self._engines.items()}

    @property
    def refused(self) -> Counter[str]:
        """The number of requests that got no place in the queue or lost it, by ensemble or model."""
        return self._queue.refused

    @asynccontextmanager
    async def slot(self, name: str, costs: Costs, direct: bool = False, key: str | None = None) -> AsyncIterator[None]:
        """Waits for `costs`, and holds them in this context. Raises Overloaded if the queue for `name` is full.

        Also raises Overloaded while it waits, if a key with fewer requests needs the place.
        """
        self.require_queue_space(name, key)
        self._evict_if_full(name)
        admitted = asyncio.get_running_loop().create_future()
        waiter = _Waiter((name, key, self._generation), self._limited_costs(costs, direct), direct, admitted)
        self._enqueue(waiter)
        self._admit_waiting()
        try:
            await waiter.admitted
        except asyncio.CancelledError:
            # It may have been admitted at the same moment; or evicted, so that it is in no queue.
            if waiter in self._queue.in_flight:
                self._release(waiter)
            elif waiter in self._queue.lanes.get(waiter.lane, ()):
                self._unqueue(waiter)
                self._admit_waiting()
            raise
        began = time.monotonic()
        try:
            yield
        finally:
            self._queue.mean_run_s += 0.1 * (time.monotonic() - began - self._queue.mean_run_s)
            self._release(waiter)

    def require_queue_space(self, name: str, key: str | None = None) -> None:
        """Raises Overloaded if the queue is full and no other key has to give up a place in it."""
        own = len(self._queue.lanes.get((name, key, self._generation), ()))
        waiting = self._queue.waiting.get(name, 0)
        if key is not None and own >= self._max_waiting_per_key:
            raise self._overloaded(name, f"{own} requests of this key are waiting, the most that one key may have")
        if waiting >= self._max_waiting and len(self._longest_lane(name)) < own + 2:
            raise self._overloaded(name, f"{waiting} requests are waiting")

    def _evict_if_full(self, name: str) -> None:
        """If the queue is full, evict the latest request of the key that has most in it."""
        if self._queue.waiting.get(name, 0) < self._max_waiting:
            return
        last = self._longest_lane(name)[-1]
        self._unqueue(last)
        # Its client may just have disconnected.
        if not last.admitted.done():
            last.admitted.set_exception(self._overloaded(name, "other keys needed this key's places in the queue"))

    def _longest_lane(self, name: str) -> deque[_Waiter]:
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

    def _limited_costs(self, costs: Costs, direct: bool) -> Mapping[EngineSequences, int]:
        """A run that costs more than an engine has gets all of it, and runs alone; a call must leave the share of runs."""
        of_engines = [(self._engines[model], count) for model, count in costs.items()]
        for engine, count in of_engines:
            most = engine.full_capacity(direct)
            if direct and count > most < engine.configured:
                raise RequestError(
                    f"n may be at most {most} here: runs need the model's other sequences.", "n", "too_large"
                )
        return {engine: min(count, engine.full_capacity(direct)) for engine, count in of_engines}

    def _admit_waiting(self) -> None:
        """Admit waiting requests while they fit: keys in turn, those of one key in the order of arrival."""
        while (fitting := self._next_fitting()) is not None:
            self._admit(fitting)
        if self._queue.lanes and self._queue.look_again is None:
            self._queue.look_again = asyncio.get_running_loop().call_later(LOOK_AGAIN_S, self._look_again)

    def _look_again(self) -> None:
        self._queue.look_again = None
        self._admit_waiting()

    def _next_fitting(self) -> _Waiter | None:
        blocked: set[EngineSequences] = set()
        now = time.monotonic()
        heads = sorted((lane[0] for lane in self._queue.lanes.values()), key=self._rank)
        for head in heads:
            # It waits for its own key's sequences, so that nobody has to wait behind it.
            if _over_its_share(head, heads):
                continue
            if not blocked & set(head.costs) and head.fits:
                return head
            if now - head.since > MAX_OVERTAKING_S:
                blocked |= set(head.costs)
        return None

    def _rank(self, head: _Waiter) -> tuple[int, float]:
        return self._queue.last_turn.get(head.lane[1], 0), head.since

    def _admit(self, waiter: _Waiter) -> None:
        self._unqueue(waiter)
        self._queue.last_turn[waiter.key] = next(self._queue.turns)
        waiter.take()
        self._queue.in_flight.add(waiter)
        if not waiter.admitted.done():
            waiter.admitted.set_result(None)

    def _release(self, waiter: _Waiter) -> None:
        waiter.take(-1)
        self._queue.in_flight.discard(waiter)
        self._admit_waiting()

    def _overloaded(self, name: str, why: str) -> Overloaded:
        """The error, which is counted. Retry-After is the expected wait: queue length times mean duration, by those in flight."""
        self.refused[name] += 1
        after_s = round(self._queue.mean_run_s * self._queue.waiting.get(name, 0) / max(1, len(self._queue.in_flight)))
        return Overloaded(f"{name} is overloaded: {why}. Try again later.", min(MAX_RETRY_AFTER_S, max(1, after_s)))


def _over_its_share(waiter: _Waiter, heads: Sequence[_Waiter]) -> bool:
    """Whether its key holds sequences already, and would get more than its share of an engine that other keys wait for."""
    for engine, count in waiter.costs.items():
        held = engine.held[waiter.key]
        others = {head.key for head in heads if engine in head.costs} - {waiter.key}
        if held and others and held + count > engine.sequences // (1 + len(others)):
            return True
    return False
