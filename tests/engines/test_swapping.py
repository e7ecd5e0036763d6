"""Who waits for a sleeper: in which order turns wake, and whom they serve."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cappella.engines.swapping import Turns


class Persistence:
    """What a change does: sleeps, then wakes. Never are two turns awake at once."""

    def __init__(self, count: int, change_s: float = 0.0) -> None:
        self.changes: list[tuple[int, int]] = []
        self.awake: int | None = 0
        self.in_flight = dict.fromkeys(range(count), 0)
        self._change_s = change_s
        self.turns = Turns(count, self._change)

    async def _change(self, old: int, new: int) -> None:
        assert self.awake == old
        assert not any(self.in_flight.values())
        self.awake = None
        await asyncio.sleep(self._change_s)
        self.awake = new
        self.changes.append((old, new))

    @asynccontextmanager
    async def call(self, turn: int) -> AsyncIterator[None]:
        async with self.turns.seat(turn):
            assert self.awake == turn
            self.in_flight[turn] += 1
            try:
                yield
            finally:
                self.in_flight[turn] -= 1

    async def run(self, turn: int, seconds: float = 0.0) -> None:
        async with self.call(turn):
            await asyncio.sleep(seconds)


async def test_who_is_awake_is_called_at_once() -> None:
    memory = Persistence(2)
    await asyncio.gather(memory.run(0), memory.run(0))
    assert memory.changes == []


async def test_all_who_wait_for_a_turn_are_served_in_one() -> None:
    memory = Persistence(3)
    await asyncio.gather(*(memory.run(turn) for _ in range(20) for turn in (0, 1, 2)))
    assert memory.changes == [(0, 1), (1, 2)]


async def test_turns_wake_in_the_order_of_the_plan() -> None:
    memory = Persistence(3)
    async with memory.call(0):
        later = [asyncio.create_task(memory.run(turn)) for turn in (2, 1)]
        await asyncio.sleep(0.01)
    await asyncio.gather(*later)
    assert memory.changes == [(0, 1), (1, 2)]


async def test_a_busy_turn_does_not_keep_others_waiting_for_ever() -> None:
    memory = Persistence(2)
    served = 0

    async def keep_busy() -> None:
        nonlocal served
        while True:
            await memory.run(0, 0.005)
            served += 1

    busy = [asyncio.create_task(keep_busy()) for _ in range(3)]
    await asyncio.sleep(0.02)
    await asyncio.wait_for(memory.run(1), 3)
    for task in busy:
        task.cancel()
    assert memory.changes[0] == (0, 1)


async def test_a_turn_goes_on_for_as_long_as_a_change_takes() -> None:
    memory = Persistence(2, change_s=0.1)
    await memory.run(1)
    waiting = asyncio.create_task(memory.run(0))
    async with memory.call(1):
        await asyncio.sleep(0.02)
        async with memory.call(1):
            assert not waiting.done()
    await waiting
    assert memory.changes == [(0, 1), (1, 0)]


async def test_a_caller_who_gives_up_is_forgotten() -> None:
    memory = Persistence(2)
    async with memory.call(0):
        gone = asyncio.create_task(memory.run(1))
        await asyncio.sleep(0.01)
        gone.cancel()
        with pytest.raises(asyncio.CancelledError):
            await gone
    await memory.run(0)
    assert memory.changes == []


async def test_who_waited_behind_one_who_gave_up_is_let_in_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cappella.engines.swapping.FIRST_CHANGE_S", 0.0)
    memory = Persistence(2)
    async with memory.call(0):
        gone = asyncio.create_task(memory.run(1))
        await asyncio.sleep(0.01)
        behind = asyncio.create_task(memory.run(0))
        await asyncio.sleep(0.01)
        assert not behind.done()
        gone.cancel()
        await asyncio.wait_for(behind, 1)
        await asyncio.wait_for(memory.run(0), 1)


async def test_a_change_that_fails_leaves_nobody_waiting() -> None:
    async def fail(old: int, new: int) -> None:
        raise OSError("no")

    turns = Turns(2, fail)
    async with asyncio.timeout(1), turns.seat(1):
        pass


@given(
    calls=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), st.integers(0, 3), st.booleans()), max_size=30),
)
@settings(deadline=None, max_examples=50)
def test_whatever_comes_everyone_is_served_and_never_two_turns_at_once(
    calls: list[tuple[int, int, int, bool]],
) -> None:
    async def all_of_them() -> None:
        memory = Persistence(3, change_s=0.001)

        async def one(turn: int, after: int, takes: int, gives_up: bool) -> None:
            await asyncio.sleep(after / 1000)
            task = asyncio.create_task(memory.run(turn, takes / 1000))
            if gives_up:
                await asyncio.sleep(0.001)
                task.cancel()
                await asyncio.wait({task})
            else:
                await task

        await asyncio.wait_for(asyncio.gather(*(one(*call) for call in calls)), 5)
        assert not any(memory.in_flight.values())

    asyncio.run(all_of_them())
