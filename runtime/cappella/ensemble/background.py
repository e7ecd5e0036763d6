"""Work beside other work, that never outlives it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def background(work: Awaitable[T]) -> AsyncIterator["asyncio.Future[T]"]:
    """Runs `work` as a task while this context lasts, then cancels it and waits for its end.

    An error of the task is the caller's to look at: the task is done when the context has ended.
    """
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        # Not `await task`: a caller that is cancelled at this very moment must hear of it.
        await asyncio.wait({task})
        if not task.cancelled():
            # An error that nobody reads would be logged as one that was forgotten.
            task.exception()
