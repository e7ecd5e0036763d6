"""Tracks requests in flight, and cancels those that outlive a drain."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

from cappella.errors import ShuttingDown
from cappella.telemetry import records
from cappella.telemetry.records import RequestRecord

END_GRACE_S = 5.0
"""What a run may take beyond its deadline to send the last of its reply."""


@dataclass(slots=True, eq=False)
class Tracked:
    """One run or call in flight. `ends_at`, on the event loop's clock, is when it ends by itself: None if unknown.

    One `request` may be tracked more than once at a time: as the task that handles it, and as its call of an engine.
    """

    cancel: Callable[[], object]
    request: RequestRecord
    ends_at: float | None = None
    is_cancelled: bool = False

    def due_at(self, drain_ends_at: float) -> float:
        """When to cancel it: at the end of the drain, or when it ends by itself if that is later."""
        return drain_ends_at if self.ends_at is None else max(drain_ends_at, self.ends_at)


class InFlight:
    """The runs and calls in flight under one config. A drain admits no more."""

    def __init__(self) -> None:
        self._tracked: set[Tracked] = set()
        self._closed = False
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """How many requests are in flight."""
        return _requests(self._tracked)

    @contextmanager
    def track(self, cancel: Callable[[], object], is_admitted: bool = False) -> Iterator[Tracked]:
        """Track what happens in this context; a drain may call `cancel`.

        Raises ShuttingDown during a drain, unless it `is_admitted` already, and in the place of any error once a drain
        has cancelled it.
        """
        if self._closed and not is_admitted:
            raise ShuttingDown("This server is about to stop.")
        tracked = Tracked(cancel, records.current())
        self._tracked.add(tracked)
        try:
            yield tracked
        except Exception as error:
            if tracked.is_cancelled:
                raise _cancelled() from error
            raise
        finally:
            self._tracked.discard(tracked)
            self._changed.set()

    @asynccontextmanager
    async def track_task(self) -> AsyncIterator[Tracked]:
        """Track the current task in this context. Raises ShuttingDown during a drain, and when a drain cancels it.

        The task sees the cancellation before the error: the request's record has the cause.
        """
        record = records.current()

        def cancel() -> None:
            record.error = ShuttingDown.__name__
            timeout.reschedule(asyncio.get_running_loop().time())

        try:
            async with asyncio.timeout(None) as timeout:
                with self.track(cancel) as tracked:
                    yield tracked
        except TimeoutError as error:
            if not timeout.expired():
                raise
            raise _cancelled() from error

    @contextmanager
    def track_future(self, work: "asyncio.Future[Any]") -> Iterator[None]:
        """Track `work`, which has begun, in this context. Raises ShuttingDown at its end if a drain has cancelled it."""
        record = records.current()

        def cancel() -> None:
            record.error = ShuttingDown.__name__
            work.cancel()

        with self.track(cancel, is_admitted=True) as tracked:
            yield
        if tracked.is_cancelled:
            raise _cancelled()

    @asynccontextmanager
    async def track_run(self) -> AsyncIterator[Callable[[float], None]]:
        """As `track_task`, for a run with a deadline: the caller calls what this yields, with its seconds, as it begins.

        Until then the run waits in the queue, and is not cancelled by `drain_to_deadlines`.
        """
        async with self.track_task() as tracked:
            tracked.ends_at = inf

            def begin(deadline_s: float) -> None:
                tracked.ends_at = asyncio.get_running_loop().time() + deadline_s + END_GRACE_S
                self._changed.set()

            yield begin

    async def drain(self, within_s: float) -> int:
        """Admit no more, wait for those in flight, and cancel the rest after `within_s`.

        Returns how many requests it cancelled.
        """
        drain_ends_at = asyncio.get_running_loop().time() + within_s
        return await self._drain(lambda _: drain_ends_at)

    async def drain_to_deadlines(self, min_s: float) -> int:
        """As `drain`, but a run may go on until its own deadline where that is later than `min_s` from now."""
        drain_ends_at = asyncio.get_running_loop().time() + min_s
        return await self._drain(lambda tracked: tracked.due_at(drain_ends_at))

    async def _drain(self, due_at: Callable[[Tracked], float]) -> int:
        self._closed = True
        now = asyncio.get_running_loop().time
        cancelled: list[Tracked] = []
        while self._tracked:
            pending = [tracked for tracked in self._tracked if not tracked.is_cancelled]
            overdue = [tracked for tracked in pending if due_at(tracked) <= now()]
            cancelled += overdue
            for tracked in overdue:
                self._cancel(tracked)
            due_times = (due_at(tracked) for tracked in pending if not tracked.is_cancelled)
            await self._wait_until(min(due_times, default=inf))
        return _requests(cancelled)

    def _cancel(self, tracked: Tracked) -> None:
        tracked.is_cancelled = True
        tracked.cancel()

    async def _wait_until(self, when: float) -> None:
        """Wait until `when`, or until something has ended or begun its deadline."""
        self._changed.clear()
        timer = None if when == inf else asyncio.get_running_loop().call_at(when, self._changed.set)
        try:
            await self._changed.wait()
        finally:
            if timer is not None:
                timer.cancel()


def _requests(tracked: Iterable[Tracked]) -> int:
    return len({id(each.request) for each in tracked})


def _cancelled() -> ShuttingDown:
    return ShuttingDown("Cancelled: the server is shutting down or has reloaded its configuration.")
