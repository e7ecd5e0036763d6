"""Places on engines for calls of batches: how many, in which order, in which swap group, and when they are given up."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import time
from typing import Any

import pytest

from cappella.background import background
from cappella.batch.phases import (
    LINGER_S,
    MAX_OTHERS_WAIT_S,
    MAX_PHASE_S,
    REFUSED_AT_ONCE,
    Groups,
    Host,
    Online,
    Phases,
    is_within,
)
from cappella.engines.status import EngineState, EngineStatus
from cappella.errors import EngineNotReady


@dataclass
class StubEngine:
    status: EngineStatus


@dataclass
class ScriptedGroups:
    awake: int = 0
    waited_for: set[int] = field(default_factory=set)


async def settled() -> None:
    """All that can go on without time has gone on."""
    for _ in range(20):
        await asyncio.sleep(0)


class Machine:
    """Engines with four sequences each, and calls that hold their places until the test lets them end."""

    def __init__(self, groups: Groups | None = None, in_groups: Sequence[int | None] = (None, None)) -> None:
        self.now = 0.0
        self.sequences = 4
        self.online = Online()
        self.is_open = True
        names = ("ann", "bob", "cat")[: len(in_groups)]
        self.statuses = {name: EngineStatus(name, "ready") for name in names}
        hosts = {
            name: Host(StubEngine(self.statuses[name]), lambda: self.sequences, group)
            for name, group in zip(self.statuses, in_groups, strict=True)
        }
        self.phases = Phases(hosts, 0.5, lambda: self.online, groups, lambda: self.is_open, lambda: self.now)
        self.working: list[int] = []
        self.gave_way: list[int] = []
        self._ends: dict[int, asyncio.Event] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def ask(self, *orders: int, name: str = "ann", size: int = 1) -> None:
        """Begin calls of the rows with these numbers."""
        for order in orders:
            self._ends[order] = asyncio.Event()
            self._tasks[order] = asyncio.create_task(self._call(name, order, size))
        await settled()

    async def end(self, *orders: int) -> None:
        for order in orders:
            self._ends[order].set()
        await settled()

    def cancel(self, order: int) -> None:
        self._tasks[order].cancel()

    async def tick(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.phases.tick()
        await settled()

    async def _call(self, name: str, order: int, size: int) -> None:
        async with self.phases.place(name, size, order) as place:
            self.working.append(order)
            try:
                async with background(self._ends[order].wait()) as ended:
                    either: set[asyncio.Future[Any]] = {ended, place.gives_way}
                    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            finally:
                self.working.remove(order)
            if place.gives_way.done():
                self.gave_way.append(order)

    async def stop(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)


@asynccontextmanager
async def machine(
    groups: Groups | None = None, in_groups: Sequence[int | None] = (None, None)
) -> AsyncIterator[Machine]:
    made = Machine(groups, in_groups)
    try:
        yield made
    finally:
        await made.stop()


async def test_a_place_is_filled_as_soon_as_a_call_ends_and_rows_go_in_their_order() -> None:
    async with machine() as made:
        await made.ask(6, 1, 2, 3, 5, 4)
        assert made.working == [6, 1, 2, 3]
        await made.end(2)
        assert made.working == [6, 1, 3, 4]
        await made.end(6)
        assert made.working == [1, 3, 4, 5]


async def test_a_call_of_several_samples_takes_as_many_places_and_the_largest_goes_alone() -> None:
    async with machine() as made:
        await made.ask(1, size=3)
        await made.ask(2, size=2)
        await made.ask(3, size=9)
        assert made.working == [1]
        await made.end(1)
        assert made.working == [2]
        await made.end(2)
        assert made.working == [3]


async def test_while_there_are_online_requests_a_batch_takes_its_share_and_else_all() -> None:
    async with machine() as made:
        made.online = Online(True, {"ann": 1})
        await made.ask(1, 2, 3, 4, 5)
        assert made.working == [1, 2]
        made.online = Online()
        await made.tick()
        assert made.working == [1, 2, 3, 4]
        # There is room for all, so that nobody is cut; but no place is filled beyond the share.
        made.online = Online(True)
        await made.tick()
        await made.end(1, 2)
        assert made.working == [3, 4]


async def test_online_requests_without_room_make_the_youngest_calls_give_way() -> None:
    async with machine() as made:
        await made.ask(1, 2, 3, 4)
        made.online = Online(True, {"ann": 3})
        await made.tick()
        assert (made.working, made.gave_way) == ([1], [4, 3, 2])
        made.online = Online(True, {"ann": 4})
        await made.tick()
        await made.ask(5)
        assert (made.working, made.gave_way) == ([], [4, 3, 2, 1])


async def test_a_call_that_is_larger_than_the_room_begins_once_online_requests_leave_it_and_others_pass() -> None:
    async with machine() as made:
        made.online = Online(True, {"ann": 1})
        await made.ask(1, size=4)
        await made.tick()
        await made.tick()
        assert (made.working, made.gave_way) == ([], [])
        await made.ask(2)
        assert made.working == [2]
        await made.ask(3, size=3)
        await made.ask(4)
        assert made.working == [2]  # Three have room, but only alone.
        await made.end(2)
        await made.tick()
        assert (made.working, made.gave_way) == ([3], [])
        made.online = Online()
        await made.end(3)
        assert (made.working, made.gave_way) == ([1], [])


async def test_an_engine_that_lost_a_replica_gets_fewer_calls_and_those_in_flight_are_not_cut() -> None:
    async with machine() as made:
        await made.ask(1, 2, 3, 4, 5)
        made.sequences = 2
        await made.tick()
        assert (made.working, made.gave_way) == ([1, 2, 3, 4], [])
        await made.end(1, 2)
        assert made.working == [3, 4]
        await made.end(3)
        assert made.working == [4, 5]
        await made.ask(6, size=4)
        await made.end(4, 5)
        # It is larger than the engine now is, and goes alone; online requests do not make it begin again and again.
        made.online = Online(True)
        await made.tick()
        assert (made.working, made.gave_way) == ([6], [])


async def test_outside_its_hours_no_call_begins_and_those_in_flight_finish() -> None:
    async with machine() as made:
        await made.ask(1)
        made.is_open = False
        await made.ask(2)
        await made.tick()
        assert (made.working, made.gave_way) == ([1], [])
        made.is_open = True
        await made.tick()
        assert made.working == [1, 2]


@pytest.mark.parametrize("state", ["loading", "restarting", "unhealthy"])
async def test_a_call_waits_for_an_engine_that_is_about_to_be_up(state: EngineState) -> None:
    async with machine() as made:
        made.statuses["ann"].state = state
        await made.ask(1)
        await made.tick()
        assert made.working == []
        made.statuses["ann"].state = "ready"
        await made.tick()
        assert made.working == [1]


async def test_a_call_of_an_engine_that_will_not_start_by_itself_fails() -> None:
    async with machine() as made:
        made.statuses["ann"].state = "loading"
        waiting = asyncio.create_task(made.phases.place("ann", 1, 1).__aenter__())
        await asyncio.sleep(0)
        made.statuses["ann"].state = "failed"
        made.phases.tick()
        with pytest.raises(EngineNotReady, match="ann is failed"):
            await waiting


async def test_calls_of_an_engine_that_goes_down_fail_a_few_at_a_time() -> None:
    async with machine() as made:
        made.statuses["ann"].state = "loading"
        count, failed = 3 * REFUSED_AT_ONCE, 0

        async def ask(order: int) -> None:
            nonlocal failed
            with pytest.raises(EngineNotReady):
                async with made.phases.place("ann", 1, order):
                    pass
            failed += 1

        async with asyncio.TaskGroup() as group:
            for order in range(count):
                group.create_task(ask(order))
            await settled()
            made.statuses["ann"].state = "failed"
            made.phases.tick()
            while failed < count:
                before = failed
                await asyncio.sleep(0)
                assert failed - before <= REFUSED_AT_ONCE


async def test_a_group_serves_all_its_calls_before_the_next_one_is_woken() -> None:
    groups = ScriptedGroups()
    async with machine(groups, (0, 1)) as made:
        await made.ask(*range(1, 7), name="bob")
        await made.ask(*range(7, 13), name="ann")
        assert made.working == [7, 8, 9, 10]
        await made.end(7, 8, 9, 10)
        await made.tick(LINGER_S)
        assert made.working == [11, 12]
        await made.end(11, 12)
        await made.tick()
        assert made.working == []  # A row may be about to make its next call.
        await made.tick(LINGER_S)
        assert made.working == [1, 2, 3, 4]
        await made.ask(20, name="ann")
        await made.end(1, 2, 3, 4)
        await made.tick(LINGER_S)
        assert made.working == [5, 6]


async def test_a_group_with_ever_more_calls_lets_another_work_after_a_while_and_then_works_again() -> None:
    groups = ScriptedGroups()
    async with machine(groups, (0, 1)) as made:
        await made.tick(MAX_PHASE_S)  # A phase begins with the first call.
        await made.ask(*range(1, 10), name="ann")
        await made.ask(20, 21, name="bob")
        await made.tick()
        await made.end(1)
        await made.tick(0.9 * MAX_PHASE_S)
        assert made.working == [2, 3, 4, 5]
        await made.tick(0.1 * MAX_PHASE_S)
        await made.end(2, 3)
        assert (made.working, made.gave_way) == ([4, 5], [])
        await made.end(4, 5)
        await made.tick()
        assert made.working == [20, 21]
        groups.awake = 1
        await made.end(20, 21)
        await made.tick()
        await made.tick(2 * LINGER_S)
        assert made.working == [6, 7, 8, 9]


async def test_of_the_groups_that_wait_too_long_the_first_is_next_and_no_phase_is_cut_at_its_begin() -> None:
    groups = ScriptedGroups()
    async with machine(groups, (0, 1, 2)) as made:
        await made.ask(1, 2, 3, 4, 5, name="ann")
        await made.ask(10, name="cat")
        await made.tick(1.0)
        await made.ask(*range(20, 26), name="bob")
        await made.tick(MAX_PHASE_S)
        await made.end(1, 2, 3, 4)
        await made.tick()
        assert made.working == [10]
        groups.awake = 2
        await made.ask(11, name="cat")
        await made.tick(1.0)
        assert made.working == [10, 11]
        await made.end(10, 11)
        await made.tick()
        await made.tick(2 * LINGER_S)
        assert made.working == [5]


async def test_while_there_are_online_requests_no_other_group_is_woken_however_long_its_calls_wait() -> None:
    async with machine(ScriptedGroups(), (0, 1)) as made:
        made.online = Online(True)
        await made.ask(1, name="ann")
        await made.ask(2, name="bob")
        await made.tick(MAX_PHASE_S)
        await made.end(1)
        await made.ask(3, name="ann")
        await made.tick()
        assert made.working == [3]


async def test_the_group_that_is_awake_goes_first_although_another_has_more_calls() -> None:
    groups = ScriptedGroups()
    async with machine(groups, (0, 1)) as made:
        made.is_open = False
        await made.ask(1, 2, 3, name="ann")
        await made.ask(4, name="bob")
        groups.awake, made.is_open = 1, True
        await made.tick()
        assert made.working == [4]
        await made.end(4)
        await made.tick()
        await made.tick(LINGER_S)
        assert made.working == [1, 2, 3]


async def test_an_engine_that_is_always_awake_works_in_every_phase() -> None:
    async with machine(ScriptedGroups(), (0, None)) as made:
        await made.ask(1, name="ann")
        await made.ask(2, name="bob")
        assert made.working == [1, 2]


async def test_calls_give_way_to_online_ones_that_wait_for_another_group() -> None:
    groups = ScriptedGroups()
    async with machine(groups, (0, 1)) as made:
        await made.ask(1, 2)
        made.online = Online(True, {"bob": 1})
        groups.waited_for = {1}
        await made.tick()
        await made.end(1)
        await made.ask(3)
        assert (made.working, made.gave_way) == ([2], [])  # Nothing begins, and what is nearly done may end.
        await made.tick(MAX_OTHERS_WAIT_S)
        assert (made.working, made.gave_way) == ([], [2])
        groups.awake, groups.waited_for = 1, set()
        await made.tick(10.0)
        assert made.working == []  # While there are online requests, only they wake a group.
        await made.ask(4, name="bob")
        assert made.working == [4]
        made.online = Online()
        await made.end(4)
        await made.tick()
        await made.tick(LINGER_S)
        assert made.working == [3]


async def test_a_call_that_is_cancelled_leaves_its_place_or_the_queue() -> None:
    async with machine() as made:
        await made.ask(1, 2, 3, 4, 5)
        made.cancel(5)
        made.cancel(1)
        await made.tick()
        assert (made.phases.waiting(), made.working) == (0, [2, 3, 4])
        await made.ask(6)
        assert made.working == [2, 3, 4, 6]


@pytest.mark.parametrize(
    ("hours", "now", "within"),
    [
        (None, time(12), True),
        ("22:00-06:00", time(22), True),
        ("22:00-06:00", time(3), True),
        ("22:00-06:00", time(6), False),
        ("08:00-17:00", time(12), True),
        ("08:00-17:00", time(7, 59), False),
        ("08:00-17:00", time(17), False),
    ],
)
def test_hours_may_pass_midnight(hours: str | None, now: time, within: bool) -> None:
    assert is_within(hours, now) is within
