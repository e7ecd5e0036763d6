"""Streams the events of a run that proceeds in the background."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from cappella.background import background
from cappella.ensemble.events import Emit, Event, FinalDelta
from cappella.ensemble.run import Run

EARLY_FAILURE_S = 0.5
"""How long a response waits for a run that fails at once, so that it can send the error's status code."""

StartRun = Callable[[Emit], Coroutine[Any, Any, Run]]


class LiveRun:
    """A run in progress; `result` may be read once `events` has ended."""

    def __init__(self, start: StartRun) -> None:
        self._events: list[Event] = []
        self._waiter: asyncio.Future[None] | None = None
        self._first_delta: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(start(self._put))
        self.task.add_done_callback(lambda _: self._wake())

    async def events(self, patience_s: Callable[[], float | None] = lambda: None) -> AsyncGenerator[list[Event], None]:
        """Yield new events in batches until the run has ended.

        An empty batch where none came for as long as `patience_s`, asked before each wait, allows.
        """
        while True:
            if not self._events and not self.task.done():
                await self._wait(patience_s())
            if not self._events and self.task.done():
                return
            batch, self._events = self._events, []
            yield batch

    @property
    def has_begun(self) -> bool:
        """Whether there is an event to read, or the run has ended."""
        return bool(self._events) or self.task.done()

    @property
    def result(self) -> Run:
        """The finished run. Raises the run's own error."""
        return self.task.result()

    async def raise_early_failure(self) -> None:
        """Wait up to EARLY_FAILURE_S, or for the first piece of the final answer. Raises the error of a failed run."""
        first: set[asyncio.Future[Any]] = {self.task, self._first_delta}
        await asyncio.wait(first, timeout=EARLY_FAILURE_S, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    def _put(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, FinalDelta) and not self._first_delta.done():
            self._first_delta.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, timeout_s: float | None) -> None:
        """Wait for an event, the run's end or the timeout. Not by `wait_for`, which would make a task per token."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(timeout_s, self._wake) if timeout_s is not None else None
        try:
            await self._waiter
        finally:
            if timer is not None:
                timer.cancel()


@asynccontextmanager
async def live(start: StartRun) -> AsyncIterator[LiveRun]:
    """Starts a run, and cancels it when the context ends before it; its engine calls have ended then, too."""
    run = LiveRun(start)
    async with background(run.task):
        yield run
