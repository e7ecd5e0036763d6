"""Swap groups: the order in which they wake, and which calls they serve."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.engines.swapping import SwapScheduler
from cappella.engines.waiting import WaitReason


class SwappedModels:
    """Groups of models in one memory, and checks that never two of them are awake at once."""

    def __init__(self, count: int, swap_s: float = 0.0) -> None:
        self.swaps: list[tuple[int, int]] = []
        self.awake: int | None = 0
        self.in_flight = dict.fromkeys(range(count), 0)
        self.told: list[WaitReason | None] = []
        self._swap_s = swap_s
        self.scheduler = SwapScheduler(count, self._swap)

    async def _swap(self, old: int, new: int) -> None:
        assert self.awake == old
        assert not any(self.in_flight.values())
        self.awake = None
        await asyncio.sleep(self._swap_s)
        self.awake = new
        self.swaps.append((old, new))

    @asynccontextmanager
    async def call(self, group: int) -> AsyncIterator[None]:
        async with self.scheduler.hold_awake(group, self.told.append):
            assert self.awake == group
            self.in_flight[group] += 1
            try:
                yield
            finally:
                self.in_flight[group] -= 1

    async def run(self, group: int, seconds: float = 0.0) -> None:
        async with self.call(group):
            await asyncio.sleep(seconds)


async def test_a_call_to_the_awake_group_does_not_wait() -> None:
    models = SwappedModels(2)
    await asyncio.gather(models.run(0), models.run(0))
    assert (models.swaps, models.told) == ([], [])


async def test_a_call_is_told_that_it_waits_for_its_groups_turn_and_when_it_does_no_longer() -> None:
    models = SwappedModels(2)
    await models.run(1)
    assert models.told == ["swap", None]


async def test_all_calls_that_wait_for_a_group_are_served_by_one_swap() -> None:
    models = SwappedModels(3)
    await asyncio.gather(*(models.run(group) for _ in range(20) for group in (0, 1, 2)))
    assert models.swaps == [(0, 1), (1, 2)]


async def test_groups_wake_in_the_order_of_the_plan() -> None:
    models = SwappedModels(3)
    async with models.call(0):
        later = [asyncio.create_task(models.run(group)) for group in (2, 1)]
        await asyncio.sleep(0.01)
    await asyncio.gather(*later)
    assert models.swaps == [(0, 1), (1, 2)]


async def test_a_busy_group_does_not_keep_others_waiting_for_ever() -> None:
    models = SwappedModels(2)
    served = 0

    async def keep_busy() -> None:
        nonlocal served
        while True:
            await models.run(0, 0.005)
            served += 1

    busy = [asyncio.create_task(keep_busy()) for _ in range(3)]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(models.run(1), 3)
    for task in busy:
        task.cancel()
    assert models.swaps[0] == (0, 1)


async def test_the_awake_group_accepts_calls_for_as_long_as_a_swap_takes() -> None:
    models = SwappedModels(2, swap_s=0.1)
    await models.run(1)
    waiting = asyncio.create_task(models.run(0))
    async with models.call(1):
        await asyncio.sleep(0.02)
        async with models.call(1):
            assert not waiting.done()
    await waiting
    assert models.swaps == [(0, 1), (1, 0)]


async def test_a_cancelled_call_is_not_waited_for() -> None:
    models = SwappedModels(2)
    async with models.call(0):
        gone = asyncio.create_task(models.run(1))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    await models.run(0)
    assert models.swaps == []


async def test_a_call_behind_a_cancelled_one_is_admitted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cappella.engines.swapping.FIRST_SWAP_S", 0.0)
    models = SwappedModels(2)
    async with models.call(0):
        gone = asyncio.create_task(models.run(1))
        await asyncio.sleep(0.01)
        behind = asyncio.create_task(models.run(0))
        await asyncio.sleep(0.01)
        assert not behind.done()
        gone.cancel()
        await asyncio.wait_for(behind, 1)
        await asyncio.wait_for(models.run(0), 1)


async def test_a_swap_that_fails_leaves_no_call_waiting() -> None:
    async def fail(old: int, new: int) -> None:
        raise OSError("no")

    scheduler = SwapScheduler(2, fail)
    async with asyncio.timeout(1), scheduler.hold_awake(1, lambda _: None):
        pass


@given(
    calls=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30),
)
def test_every_call_is_served_and_never_two_groups_are_awake(
    calls: list[tuple[int, int, int, bool]],
) -> None:
    async def all_of_them() -> None:
        models = SwappedModels(3, swap_s=0.001)

        async def one(group: int, after_ms: int, call_ms: int, gives_up: bool) -> None:
            await asyncio.sleep(after_ms / 1000)
            task = asyncio.create_task(models.run(group, call_ms / 1000))
            if gives_up:
                await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait({task})
            else:
                await task

        await asyncio.wait_for(asyncio.gather(*(one(*call) for call in calls)), 5)
        assert not any(models.in_flight.values())

    asyncio.run(all_of_them())


@pytest.mark.parametrize("flood", ["direct calls", "runs"])
async def test_neither_direct_calls_nor_runs_starve_the_other(flood: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run calls every group, a direct call one; a flood of either lets the other through."""
    monkeypatch.setattr("cappella.engines.swapping.FIRST_SWAP_S", 0.002)
    models = SwappedModels(2, swap_s=0.002)
    served = Counter[str]()

    async def direct() -> None:
        await models.run(0, 0.001)
        served["direct calls"] += 1

    async def one_run() -> None:
        await asyncio.gather(models.run(0, 0.001), models.run(1, 0.001))
        served["runs"] += 1

    async def for_ever(one: Callable[[], Awaitable[None]]) -> None:
        while True:
            await one()

    many, few = (direct, one_run) if flood == "direct calls" else (one_run, direct)
    tasks = [asyncio.create_task(for_ever(many)) for _ in range(20)]
    async with asyncio.timeout(10):
        while min(served["direct calls"], served["runs"]) < 5:
            await few()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
