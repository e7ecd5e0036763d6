"""Which calls of batches may use an engine now: as many as online requests leave room for, on engines that are awake.

Engines that are awake together work at the same time. With swap groups there are phases: one group serves all its
calls that wait, for a while at most, then the group with most of them is next. A place is filled again as soon as its
call ends.
"""

import asyncio
from bisect import insort
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import time
from itertools import count
from time import monotonic
from typing import Protocol

from cappella.engines.status import EngineStatus
from cappella.errors import EngineNotReady

TICK_S = 0.1
MAX_OTHERS_WAIT_S = 1.0
"""So long do online calls wait for another group until the batch's calls on the awake one give way."""
LINGER_S = 0.3
"""A group without calls stays for so long: a row that has just ended one may be about to make the next."""
MAX_PHASE_S = 600.0
"""After so long a group begins no more calls while another has some: a swap takes a minute at most."""
REFUSED_AT_ONCE = 50
"""So many calls fail at once as their engine goes down; the next as these leave, with requests served meanwhile."""
DOWN = ("failed", "stopped")
"""The states of an engine that only an operator ends."""


def is_within(hours: str | None, now: time) -> bool:
    """Whether it is now between two times of a day, as 22:00-06:00; None is always."""
    if hours is None:
        return True
    begin, end = (time.fromisoformat(each) for each in hours.split("-"))
    return begin <= now < end if begin <= end else now >= begin or now < end


class HasStatus(Protocol):
    """An engine, of which only the status matters here; it is read anew each time."""

    @property
    def status(self) -> EngineStatus: ...


@dataclass(frozen=True, slots=True)
class Host:
    """An engine that runs so many `sequences` at once now; `group` is its swap group, None for one that is always awake."""

    engine: HasStatus
    sequences: Callable[[], int]
    group: int | None = None

    @property
    def status(self) -> EngineStatus:
        return self.engine.status


@dataclass(frozen=True, slots=True)
class Online:
    """Requests that are of no batch: whether there are any, and how many sequences they hold, by engine."""

    is_busy: bool = False
    held: Mapping[str, int] = field(default_factory=dict)


class Groups(Protocol):
    """The swap groups of a deployment; see `SwapScheduler`."""

    @property
    def awake(self) -> int: ...
    @property
    def waited_for(self) -> Collection[int]: ...


@dataclass(slots=True, eq=False)
class Place:
    """What a call of `size` sequences waits for. It has to be left early once `gives_way` is done.

    Calls of a lower `rank` go first, and give way last. It was asked for at `since`.
    """

    rank: tuple[int, int]
    size: int
    since: float
    granted: asyncio.Future[None]
    gives_way: asyncio.Future[None]


@dataclass(slots=True)
class _Queue:
    host: Host
    waiting: list[Place] = field(default_factory=list)
    taken: list[Place] = field(default_factory=list)

    @property
    def size(self) -> int:
        return sum(map(self.size_of, self.taken))

    @property
    def staying(self) -> list[Place]:
        return [place for place in self.taken if not place.gives_way.done()]

    def first(self, room: int) -> Place | None:
        """The call that is next: one that is larger than the room lets others pass, since it would have to give way."""
        return next((place for place in self.waiting if self.size_of(place) <= room), None)

    def size_of(self, place: Place) -> int:
        """A call that is larger than the engine takes all of it, also where replicas of the engine have gone since."""
        return min(place.size, self.host.sequences())

    def leave(self, place: Place) -> None:
        """Give the place back, or wait for it no more."""
        (self.taken if place in self.taken else self.waiting).remove(place)


class Phases:
    """The places on the engines of one deployment, by the names of the models that these host.

    While there are online requests, a batch takes `share` of an engine's sequences at most. Outside `is_open` no call
    begins. `tick` has to be called again and again, as `run` does.
    """

    def __init__(
        self,
        hosts: Mapping[str, Host],
        share: float,
        online: Callable[[], Online] = Online,
        groups: Groups | None = None,
        is_open: Callable[[], bool] = lambda: True,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._queues = {name: _Queue(host) for name, host in hosts.items()}
        self._share = share
        self._online = online
        self._groups = groups
        self._is_open = is_open
        self._clock = clock
        self._numbers = count()
        self._group = groups.awake if groups else None
        self._phase_since = clock()
        self._is_closing = False
        self._others_since: float | None = None
        self._idle_since: float | None = None

    @property
    def groups(self) -> Mapping[str, int | None]:
        """The swap group of each engine; None for one that is always awake."""
        return {name: queue.host.group for name, queue in self._queues.items()}

    @property
    def sequences(self) -> int:
        """Of all engines."""
        return sum(queue.host.sequences() for queue in self._queues.values())

    @asynccontextmanager
    async def place(self, name: str, size: int, order: int) -> AsyncIterator[Place]:
        """Wait for a place, and hold it in this context. Raises EngineNotReady if the engine will not start by itself."""
        loop, queue = asyncio.get_running_loop(), self._queues[name]
        rank = (order, next(self._numbers))
        place = Place(rank, size, self._clock(), loop.create_future(), loop.create_future())
        insort(queue.waiting, place, key=lambda each: each.rank)
        try:
            self._serve(name, self._online())
            await place.granted
            yield place
        finally:
            queue.leave(place)
            self._serve(name, self._online())

    async def run(self) -> None:
        """Follow what changes elsewhere, until cancelled."""
        while True:
            self.tick()
            await asyncio.sleep(TICK_S)

    def tick(self) -> None:
        """Choose the group that works, let calls give way, and fill places."""
        online = self._online()
        self._choose_group(online)
        self._let_others_wake()
        for name in self._queues:
            self._make_room(name, online)
            self._serve(name, online)

    def waiting(self, group: int | None = None) -> int:
        """How many calls wait, of one group or of all engines."""
        return sum(len(queue.waiting) for queue in self._of(group))

    def _of(self, group: int | None) -> list[_Queue]:
        return [queue for queue in self._queues.values() if group is None or queue.host.group == group]

    def _serve(self, name: str, online: Online) -> None:
        """Grant places on one engine while there is room."""
        queue = self._queues[name]
        if queue.host.status.state in DOWN:
            self._refuse(name)
        if not self._may_begin(queue.host):
            return
        limit, room = self._limit(name, online), self._room(name, online)
        while place := queue.first(max(0, room)):
            # One that is larger than the limit goes alone.
            if place.size and queue.size and queue.size + queue.size_of(place) > limit:
                return
            queue.waiting.remove(place)
            queue.taken.append(place)
            if not place.granted.done():
                place.granted.set_result(None)

    def _refuse(self, name: str) -> None:
        status = self._queues[name].host.status
        for place in self._queues[name].waiting[:REFUSED_AT_ONCE]:
            if not place.granted.done():
                place.granted.set_exception(EngineNotReady(f"{name} is {status.state}"))

    def _may_begin(self, host: Host) -> bool:
        if not self._is_open() or not host.status.accepts_requests:
            return False
        is_its_turn = host.group == self._group and self._others_since is None and not self._is_closing
        return host.group is None or is_its_turn

    def _limit(self, name: str, online: Online) -> int:
        """The number of sequences that batches may have on an engine."""
        most, room = self._queues[name].host.sequences(), self._room(name, online)
        return min(max(1, int(self._share * most)), room) if online.is_busy else most

    def _room(self, name: str, online: Online) -> int:
        """The number of sequences that online requests leave."""
        most = self._queues[name].host.sequences()
        return most - online.held.get(name, 0) if online.is_busy else most

    def _make_room(self, name: str, online: Online) -> None:
        """Let the youngest calls give way to online ones that have no room."""
        if not online.is_busy:
            return
        queue, room = self._queues[name], self._room(name, online)
        staying = sorted(queue.staying, key=lambda place: place.rank)
        while staying and sum(map(queue.size_of, staying)) > room:
            staying.pop().gives_way.set_result(None)

    def _choose_group(self, online: Online) -> None:
        """Go on with the group that works while it has calls; then with one that is awake, or with the next."""
        if self._groups is None:
            return
        if not self.waiting():
            self._phase_since = self._clock()
        self._is_closing = not online.is_busy and self._has_lasted
        if any(queue.taken for queue in self._of_groups(self._group)):
            self._idle_since = None
            return
        awake = self._groups.awake
        if online.is_busy or (self.waiting(awake) and not self._is_closing):
            self._work_on(awake)
            return
        self._idle_since = self._clock() if self._idle_since is None else self._idle_since
        if self._is_closing or self._clock() - self._idle_since >= LINGER_S:
            self._work_on(self._next_group(awake))

    def _work_on(self, group: int) -> None:
        if group != self._group:
            self._phase_since = self._clock()
        self._group, self._idle_since, self._is_closing = group, None, False

    @property
    def _has_lasted(self) -> bool:
        """Whether the phase was long enough, now that calls of another group wait that could begin."""
        others = [queue for queue in self._queues.values() if queue.host.group not in (None, self._group)]
        could_begin = any(queue.waiting and queue.host.status.accepts_requests for queue in others)
        return could_begin and self._clock() - self._phase_since >= MAX_PHASE_S

    def _next_group(self, awake: int) -> int:
        """The one whose first call has waited for too long, else the one with most calls that wait."""
        since: dict[int, float] = {}
        for queue in self._queues.values():
            group = queue.host.group
            if group is not None and queue.waiting and not (self._is_closing and group == self._group):
                first = min(place.since for place in queue.waiting)
                since[group] = min(first, since.get(group, first))
        late = [group for group in since if self._clock() - since[group] >= MAX_PHASE_S]
        return min(late, key=since.__getitem__) if late else max(since, key=self.waiting, default=awake)

    def _of_groups(self, group: int | None) -> list[_Queue]:
        """The engines of one swap group; none for None."""
        return [] if group is None else self._of(group)

    def _let_others_wake(self) -> None:
        """Once online calls have waited for another group for a moment, the calls on the one that works give way."""
        others = self._groups is not None and any(each != self._group for each in self._groups.waited_for)
        if not others:
            self._others_since = None
            return
        self._others_since = self._clock() if self._others_since is None else self._others_since
        if self._clock() - self._others_since >= MAX_OTHERS_WAIT_S:
            for place in [place for queue in self._of_groups(self._group) for place in queue.staying]:
                place.gives_way.set_result(None)
