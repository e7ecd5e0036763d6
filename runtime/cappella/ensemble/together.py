"""Calls that are wanted together: the first that fails ends the others, so that none outlives what it is made for."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import TypeVar

AT_ONCE = 4
"""Calls of one judge at a time, where it reads several orders or answers: so many sequences it takes of its engine."""

T = TypeVar("T")


async def together(calls: Iterable[Callable[[], Awaitable[T]]], at_once: int | None = None) -> list[T]:
    """What all calls give, in their order, at most `at_once` at a time. Raises the error of the first that fails."""
    turn: AbstractAsyncContextManager[object] = asyncio.Semaphore(at_once) if at_once else nullcontext()

    async def made(call: Callable[[], Awaitable[T]]) -> T:
        async with turn:
            return await call()

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(made(call)) for call in calls]
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from None
    return [task.result() for task in tasks]
