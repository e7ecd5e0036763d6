"""Runs work that is too large for the event loop on a few threads, so that other requests are answered meanwhile."""

import asyncio
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial
from typing import ParamSpec, TypeVar

MAX_INLINE_CHARS = 100_000
"""What is read, checked and written in the event loop: some 2 ms of work. A thread costs 0.1 ms."""
# More would not help: they take turns at Python's lock, and each one keeps the event loop waiting for its turn.
_THREADS = ThreadPoolExecutor(2, "large-requests")

Args = ParamSpec("Args")
Result = TypeVar("Result")


async def off_loop_if_large(
    chars: int, work: Callable[Args, Result], /, *args: Args.args, **options: Args.kwargs
) -> Result:
    """The result of `work` on so many characters: on a thread for more than MAX_INLINE_CHARS, else at once."""
    if chars <= MAX_INLINE_CHARS:
        return work(*args, **options)
    task = partial(copy_context().run, work, *args, **options)
    return await asyncio.get_running_loop().run_in_executor(_THREADS, _tidy, task)


def _tidy(task: Callable[[], Result]) -> Result:
    try:
        return task()
    except Exception as error:
        # What its frames hold is freed here: half a million objects take the event loop 20 ms.
        traceback.clear_frames(error.__traceback__)
        raise


async def joined(pieces: Sequence[bytes]) -> bytes:
    """The pieces as one, copied on a thread where they are large."""
    return await off_loop_if_large(sum(map(len, pieces)), b"".join, pieces)
