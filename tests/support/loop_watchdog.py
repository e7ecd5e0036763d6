"""Measures how long the event loop was held by one piece of work."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

INTERVAL_S = 0.005


class LoopWatchdog:
    """`held_s` is the most CPU time that passed until the loop came to this task again."""

    def __init__(self) -> None:
        self.held_s = 0.0

    async def watch(self) -> None:
        while True:
            began = time.process_time()
            await asyncio.sleep(INTERVAL_S)
            # The CPU time of this process, whose threads may keep Python's lock: that of others is none of its doing.
            self.held_s = max(self.held_s, time.process_time() - began)


@asynccontextmanager
async def watched_loop() -> AsyncIterator[LoopWatchdog]:
    """A watchdog of this loop, during this context."""
    watchdog = LoopWatchdog()
    task = asyncio.create_task(watchdog.watch())
    try:
        yield watchdog
    finally:
        task.cancel()
