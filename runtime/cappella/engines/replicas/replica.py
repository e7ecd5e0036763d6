"""One of several servers of a model: its engine, the calls that it has now, and how busy that makes it."""

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cappella.engines.base import SingleServer
from cappella.errors import EngineBroke, EngineGaveUp

SUSPECT_S = 5.0
"""A replica of which a call broke counts as full for so long: by then its own health check has seen it."""
FULL = 1.0
"""The load of a replica that has as many calls as it runs at once."""


class Calls:
    """The calls of one server, under all the names that it has: the `count` in flight, and how many have `failed` with it.

    `runs` counts those that keep it awake.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._broke_at = float("-inf")
        self._idle = asyncio.Event()
        self._idle.set()
        self.count = 0
        self.failed = 0
        self.runs = 0

    @property
    def is_suspect(self) -> bool:
        return self._clock() - self._broke_at < SUSPECT_S

    @contextmanager
    def one(self) -> Iterator[None]:
        """One call, from the moment that the replica is chosen for it."""
        self.count += 1
        self._idle.clear()
        try:
            yield
        except EngineBroke as error:
            if not isinstance(error, EngineGaveUp):
                self._broke_at = self._clock()
                self.failed += 1
            raise
        finally:
            self.count -= 1
            if not self.count:
                self._idle.set()

    def note_token(self) -> None:
        """It has just shown that it works."""
        self._broke_at = float("-inf")

    async def end(self) -> None:
        """Wait until no call is in flight."""
        await self._idle.wait()


class Replica:
    """One server of a model under one name. `engine` has its own status and circuit breaker, which its health check keeps.

    `max_num_seqs` is what the server runs at once. Clients of one server under several names, as of adapters, share `calls`.
    """

    def __init__(self, name: str, engine: SingleServer, max_num_seqs: int, calls: Calls | None = None) -> None:
        self.name = name
        self.engine = engine
        self.max_num_seqs = max_num_seqs
        self.calls = calls or Calls()

    @property
    def accepts_calls(self) -> bool:
        return self.engine.status.accepts_requests

    @property
    def is_waking(self) -> bool:
        """Whether it sleeps, and a call or a run has begun to wake it."""
        return self.engine.status.state == "asleep" and bool(self.calls.count or self.calls.runs)

    @property
    def has_room(self) -> bool:
        """Whether it has fewer calls than it runs at once."""
        return self.calls.count < self.max_num_seqs

    @contextmanager
    def keep_awake(self) -> Iterator[None]:
        """See `Engine.keep_awake`."""
        self.calls.runs += 1
        try:
            with self.engine.keep_awake():
                yield
        finally:
            self.calls.runs -= 1

    @property
    def load(self) -> float:
        """Its calls in flight, by how many it runs at once. One that sleeps, or has just broken a call, counts as full."""
        is_last_choice = self.calls.is_suspect or self.engine.status.state != "ready"
        return self.calls.count / self.max_num_seqs + FULL * is_last_choice
