"""A run in the background, and a caller that leaves it."""

import asyncio
from typing import NoReturn

import pytest

from cappella.ensemble.events import Emit
from cappella.ensemble.stream import live


async def test_a_caller_that_is_cancelled_while_its_run_ends_does_not_go_on() -> None:
    ending, freed = asyncio.Event(), asyncio.Event()

    async def slow_to_end(_: Emit) -> NoReturn:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await freed.wait()
        raise AssertionError

    went_on = False

    async def caller() -> None:
        nonlocal went_on
        async with live(slow_to_end):
            await asyncio.sleep(0)
        went_on = True

    task = asyncio.create_task(caller())
    await ending.wait()
    task.cancel()
    await asyncio.sleep(0)
    freed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not went_on


async def test_a_run_that_fails_while_it_is_left_does_not_fail_its_caller() -> None:
    async def fails_to_end(_: Emit) -> NoReturn:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError

    async with live(fails_to_end):
        await asyncio.sleep(0)
