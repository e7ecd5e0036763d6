"""Tracks what is under way while a gateway, or a config that another has replaced, comes to its end."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import inf

from cappella.errors import ShuttingDown

END_S = 5.0
"""What a run that has come to its deadline may still take to say how it ended."""


@dataclass(slots=True, eq=False)
class Passage:
    """One thing under way. `ends_at`, on the event loop's clock, is when it ends by itself: None if it promises nothing."""

    cut: Callable[[], object]
    ends_at: float | None = None
    was_cut: bool = False

    def due_at(self, by: float) -> float:
        """When to cut it: at `by`, or later if it ends by itself later."""
        return by if self.ends_at is None else max(by, self.ends_at)


class InFlight:
    """Once they close nothing else comes in, and what is not out in time is cut: then there is a `reason`."""

    def __init__(self) -> None:
        self._inside: set[Passage] = set()
        self._closed = False
        self.reason: ShuttingDown | None = None
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many are inside."""
        return len(self._inside)

    @contextmanager
    def passed(self, cut: Callable[[], object], staying: bool = False) -> Iterator[Passage]:
        """From the way in to the way out; `cut` is called on what stays too long.

        Raises ShuttingDown if they are closed, but not for what is inside and `staying`.
        """
        if self._closed and not staying:
            raise ShuttingDown("This server is about to stop.")
        passage = Passage(cut)
        self._inside.add(passage)
        try:
            yield passage
        finally:
            self._inside.discard(passage)
            self._changed.set()

    @asynccontextmanager
    async def inside(self) -> AsyncIterator[Passage]:
        """The same for what one task does. Raises ShuttingDown also where it was cut."""
        try:
            async with asyncio.timeout(None) as time:
                now = asyncio.get_running_loop().time
                with self.passed(lambda: time.reschedule(now())) as passage:
                    yield passage
        except TimeoutError as error:
            if not time.expired():
                raise
            raise self.reason or error from error

    @asynccontextmanager
    async def run_inside(self) -> AsyncIterator[Callable[[float], None]]:
        """The same for a run with a deadline of its own: what this gives is called with its seconds when it begins.

        Until then it waits for room, and has all its time before it.
        """
        async with self.inside() as passage:
            passage.ends_at = inf

            def begin(deadline_s: float) -> None:
                passage.ends_at = asyncio.get_running_loop().time() + deadline_s + END_S
                self._changed.set()

            yield begin

    async def close(self, within_s: float) -> int:
        """Wait until everything is out, and cut what is not by then; returns how many were."""
        by = asyncio.get_running_loop().time() + within_s
        return await self._empty(lambda _: by)

    async def let_end(self, at_least_s: float) -> int:
        """The same, but each run has until its own deadline where that is later."""
        by = asyncio.get_running_loop().time() + at_least_s
        return await self._empty(lambda passage: passage.due_at(by))

    async def _empty(self, due_at: Callable[[Passage], float]) -> int:
        self._closed = True
        now, count = asyncio.get_running_loop().time, 0
        while self._inside:
            waited_for = [passage for passage in self._inside if not passage.was_cut]
            late = [passage for passage in waited_for if due_at(passage) <= now()]
            count += len(late)
            for passage in late:
                self._cut(passage)
            await self._until(min((due_at(passage) for passage in waited_for if not passage.was_cut), default=inf))
        return count

    def _cut(self, passage: Passage) -> None:
        self.reason = ShuttingDown("Cancelled: this server stops, or serves another config now.")
        passage.was_cut = True
        passage.cut()

    async def _until(self, when: float) -> None:
        """Until then, or until something has changed inside."""
        self._changed.clear()
        timer = None if when == inf else asyncio.get_running_loop().call_at(when, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
