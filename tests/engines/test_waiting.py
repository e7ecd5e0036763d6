"""Limits on time that stand still while a call waits for its place in a batch."""

import asyncio

import pytest

from cappella.engines import waiting


async def test_a_pause_does_not_count_and_what_was_left_is_left_after_it() -> None:
    reached = []

    async def wait_and_work() -> None:
        async with waiting.timeout(0.05):
            with waiting.paused():
                await asyncio.sleep(0.2)
            reached.append("work")
            await asyncio.sleep(60)

    with pytest.raises(TimeoutError):
        await wait_and_work()
    assert reached == ["work"]


async def test_it_stands_still_until_the_last_of_several_pauses_is_over() -> None:
    is_over = asyncio.Event()

    async def wait() -> None:
        with waiting.paused():
            await is_over.wait()

    async with waiting.timeout(2):
        both = [asyncio.create_task(wait()), asyncio.create_task(wait())]
        with waiting.paused():
            await asyncio.sleep(1.2)
        await asyncio.sleep(1.2)
        is_over.set()
        await asyncio.gather(*both)


async def test_only_the_limits_around_a_call_stand_still() -> None:
    async def wait_for_a_place() -> None:
        with waiting.paused():
            await asyncio.sleep(60)

    beside = asyncio.create_task(wait_for_a_place())
    with pytest.raises(TimeoutError):
        async with waiting.timeout(0.05):
            await asyncio.sleep(60)
    beside.cancel()


async def test_a_call_that_is_cut_while_it_waits_leaves_the_limits_around_it() -> None:
    async def wait() -> None:
        with waiting.paused():
            await asyncio.sleep(60)

    async with waiting.timeout(60):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(wait(), 0.01)
        with pytest.raises(TimeoutError):
            async with waiting.timeout(0.01):
                await asyncio.sleep(60)
