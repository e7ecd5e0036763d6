"""Background tasks that end with the context that started them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import TypeVar

T = TypeVar("T")


@asynccontextmanager
async def background(work: Awaitable[T]) -> AsyncIterator["asyncio.Future[T]"]:
    """Runs `work` as a task during this context, then cancels it and waits until it has ended.

    Errors of the task are not raised here; the caller can read them from the task, which is done by then.
    """
    task = asyncio.ensure_future(work)
    try:
        yield task
    finally:
        task.cancel()
        # Not `await task`, which would swallow a cancellation of the caller at this moment.
        await asyncio.wait({task})
        if not task.cancelled():
            # Marks the error as retrieved: asyncio logs errors that are not.
            task.exception()
