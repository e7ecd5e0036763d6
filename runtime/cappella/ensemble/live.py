"""A run in the background, its events one by one."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any

from cappella.events import Emit, Event
from cappella.runs import Run

EARLY_FAILURE_S = 0.5

StartRun = Callable[[Emit], Coroutine[Any, Any, Run]]


class LiveRun:
    """A run that is under way; `result` may be read once its events have ended."""

    def __init__(self, start: StartRun) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self._task = asyncio.create_task(start(self._events.put_nowait))
        self._task.add_done_callback(lambda _: self._events.put_nowait(None))

    async def events(self, silence_s: float | None = None) -> AsyncGenerator[Event | None, None]:
        """Until the run has ended; None stands for a silence of that many seconds."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), silence_s)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event

    @property
    def result(self) -> Run:
        """The run. Raises what the run raised."""
        return self._task.result()

    async def settle(self) -> None:
        """Wait a moment, so that a run that fails at once can still answer with its own status code.

        Raises what the run raised.
        """
        await asyncio.wait({self._task}, timeout=EARLY_FAILURE_S)
        if self._task.done():
            self._task.result()

    async def cancel(self) -> None:
        """End the run and wait until its engines are free."""
        self._task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self._task


@asynccontextmanager
async def live(start: StartRun) -> AsyncIterator[LiveRun]:
    """A run that ends with this context, however the context ends."""
    run = LiveRun(start)
    try:
        yield run
    finally:
        await run.cancel()
