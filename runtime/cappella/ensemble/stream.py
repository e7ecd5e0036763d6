"""A run in the background, its events one by one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

from cappella.background import background
from cappella.ensemble.events import Emit, Event, FinalDelta
from cappella.ensemble.run import Run

EARLY_FAILURE_S = 0.5

StartRun = Callable[[Emit], Coroutine[Any, Any, Run]]


class LiveRun:
    """A run that is under way; `result` may be read once its events have ended."""

    def __init__(self, start: StartRun) -> None:
        self._events: list[Event] = []
        self._waiter: asyncio.Future[None] | None = None
        self._answering: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.task = asyncio.create_task(start(self._put))
        self.task.add_done_callback(lambda _: self._wake())

    async def events(self, silence_s: float | None = None) -> AsyncGenerator[list[Event], None]:
        """What happened since the last time, until the run has ended; an empty list is so many seconds' silence."""
        while True:
            if not self._events and not self.task.done():
                await self._wait(silence_s)
            if not self._events and self.task.done():
                return
            happened, self._events = self._events, []
            yield happened

    @property
    def result(self) -> Run:
        """The run. Raises what the run raised."""
        return self.task.result()

    async def settle(self) -> None:
        """Wait a moment, so that a run that fails at once can still answer with its own status code.

        Ends at the latest with the answer's first piece. Raises what the run raised.
        """
        begun: set[asyncio.Future[Any]] = {self.task, self._answering}
        await asyncio.wait(begun, timeout=EARLY_FAILURE_S, return_when=asyncio.FIRST_COMPLETED)
        if self.task.done():
            self.task.result()

    def _put(self, event: Event) -> None:
        self._events.append(event)
        if isinstance(event, FinalDelta) and not self._answering.done():
            self._answering.set_result(None)
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self, timeout_s: float | None) -> None:
        """Until there is something to read. A timer and a future: `wait_for` would make a task for every token."""
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
    """A run that ends with this context, however the context ends; its engines are free then."""
    run = LiveRun(start)
    async with background(run.task):
        yield run
