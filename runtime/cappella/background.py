"""Background tasks that end with the context that started them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

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


async def to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Does `work` to its end, also if the caller is cancelled meanwhile, which is cancelled after it."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled:
        raise cancelled
    task.result()
