"""Background runs whose caller is cancelled or leaves."""

import asyncio
from typing import NoReturn

import pytest

from cappella.ensemble.events import Emit
from cappella.ensemble.stream import live


async def test_a_caller_cancelled_while_its_run_ends_does_not_continue() -> None:
    ending, freed = asyncio.Event(), asyncio.Event()

    async def slow_to_end(_: Emit) -> NoReturn:
        try:
            await asyncio.Event().wait()
        finally:
            ending.set()
            await freed.wait()
        raise AssertionError

    continued = False

    async def caller() -> None:
        nonlocal continued
        async with live(slow_to_end):
            await asyncio.sleep(0)
        continued = True

    task = asyncio.create_task(caller())
    await ending.wait()
    task.cancel()
    await asyncio.sleep(0)
    freed.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not continued


async def test_a_run_that_fails_on_cancellation_does_not_fail_its_caller() -> None:
    async def fails_to_end(_: Emit) -> NoReturn:
        try:
            await asyncio.Event().wait()
        finally:
            raise RuntimeError

    async with live(fails_to_end):
        await asyncio.sleep(0)
