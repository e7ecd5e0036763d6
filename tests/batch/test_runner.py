"""Rows of several batches and keys: whose turn it is, how many are in flight, and what happens when something fails."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from cappella.background import background
from cappella.batch.opened import CANCELLED_AT_ONCE
from cappella.batch.runner import MIN_ROWS, UNEXPECTED, Job, Limits, NotNow, running
from cappella.batch.store import BatchStore
from cappella.batch.types import RowEnd
from cappella.errors import BatchesUnavailable
from support.batch_gateway import until
from support.fake_engines import eventually
from support.stored_batches import bad, body, good, stored_batch

QUICK = Limits(poll_s=0.01, retry_s=0.01)


class ScriptedWork:
    """Answers rows when the test lets them end, or at once."""

    weights = "w"
    sequences = 1
    is_current = True

    def __init__(self, holds: bool = False) -> None:
        self.begun: list[str] = []
        self.in_flight = 0
        self.peak = 0
        self.ends: Callable[[Job], RowEnd] = lambda job: good()
        self.released = asyncio.Event()
        if not holds:
            self.released.set()

    async def run(self) -> None:
        await asyncio.Event().wait()

    async def answer(self, job: Job) -> RowEnd:
        self.begun.append(f"{job.batch.key_id} {job.row.custom_id}")
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            await self.released.wait()
            return self.ends(job)
        finally:
            self.in_flight -= 1


@asynccontextmanager
async def serving(folder: Path, work: ScriptedWork, limits: Limits = QUICK) -> AsyncIterator[BatchStore]:
    async def begin() -> ScriptedWork:
        return work

    store = BatchStore(folder / "batches")
    async with running(store, begin, limits):
        yield store


def bodies(count: int) -> list[Any]:
    return [body(str(number)) for number in range(count)]


async def test_keys_take_turns_and_of_one_key_the_oldest_batch_goes_first(tmp_path: Path) -> None:
    work = ScriptedWork(holds=True)
    async with serving(tmp_path, work, Limits(max_rows=1, poll_s=0.01)) as store:
        await stored_batch(store, bodies(1), "ann")
        assert await eventually(lambda: work.in_flight == 1)
        await stored_batch(store, bodies(1), "ann")
        last = await stored_batch(store, bodies(3), "ann")
        other = await stored_batch(store, bodies(2), "bob")
        work.released.set()
        await until(store, last, status="completed")
        await until(store, other, status="completed")
    assert work.begun == ["ann r1", "bob r1", "ann r1", "bob r2", "ann r1", "ann r2", "ann r3"]


@pytest.mark.parametrize("limits", [Limits(max_rows=3, poll_s=0.01), Limits(max_bytes=3 * 70, poll_s=0.01)])
async def test_so_many_rows_are_in_flight_and_no_more(tmp_path: Path, limits: Limits) -> None:
    work = ScriptedWork(holds=True)
    async with serving(tmp_path, work, limits) as store:
        batch = await stored_batch(store, bodies(9))
        assert await eventually(lambda: work.in_flight == 3)
        work.released.set()
        await until(store, batch, status="completed", completed=9)
    assert (work.peak, len(work.begun)) == (3, 9)


@pytest.mark.parametrize(("sequences", "in_flight"), [(1, MIN_ROWS), (MIN_ROWS // 4 + 1, MIN_ROWS + 4)])
async def test_no_more_rows_are_in_flight_than_keep_the_engines_at_work(
    tmp_path: Path, sequences: int, in_flight: int
) -> None:
    work = ScriptedWork(holds=True)
    work.sequences = sequences
    async with serving(tmp_path, work) as store:
        batch = await stored_batch(store, bodies(MIN_ROWS + 9))
        assert await eventually(lambda: work.in_flight == in_flight)
        work.released.set()
        await until(store, batch, status="completed")
    assert work.peak == in_flight


async def test_a_row_that_cannot_be_answered_now_is_answered_later_and_the_batch_says_why(tmp_path: Path) -> None:
    work = ScriptedWork()

    def not_now(job: Job) -> RowEnd:
        raise NotNow("ann is failed")

    work.ends = not_now
    async with serving(tmp_path, work) as store:
        batch = await stored_batch(store, bodies(1))
        await until(store, batch, paused="ann is failed", status="in_progress")
        work.ends = lambda job: bad()
        found = await until(store, batch, status="completed", paused=None)
    assert (found.completed, found.failed) == (0, 1)


@pytest.mark.parametrize("method", ["end_row", "finish", "steps"])
async def test_a_full_disk_loses_no_row_and_cuts_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    work, real, refused = ScriptedWork(), getattr(BatchStore, method), 0
    is_full = True

    async def full(self: BatchStore, *args: Any) -> Any:
        nonlocal refused
        if is_full:
            refused += 1
            raise BatchesUnavailable("No space left on device")
        return await real(self, *args)

    monkeypatch.setattr(BatchStore, method, full)
    async with serving(tmp_path, work) as store:
        batch = await stored_batch(store, bodies(2))
        assert await eventually(lambda: refused > 2)
        await until(store, batch, paused="No space left on device")
        is_full = False
        await until(store, batch, status="completed", completed=2, paused=None)
    assert len(work.begun) == 2


async def test_a_file_that_cannot_be_read_stops_only_its_own_batch(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedWork()) as store:
        lost = await stored_batch(store, bodies(1), "ann")
        # For root, permissions make no file unreadable.
        (tmp_path / "batches" / lost.input_file_id).unlink()
        (tmp_path / "batches" / lost.input_file_id).mkdir()
        other = await stored_batch(store, bodies(2), "bob")
        await until(store, other, status="completed", completed=2)
        assert (await until(store, lost, status="in_progress")).completed == 0


@pytest.mark.parametrize("method", ["begin", "row_secret", "rows_left", "steps", "finish"])
async def test_an_unexpected_error_pauses_its_batch_alone_and_cuts_no_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    work, real, lost_id = ScriptedWork(holds=True), getattr(BatchStore, method), ""

    async def broken(self: BatchStore, about: Any, *args: Any) -> Any:
        if lost_id == getattr(about, "batch_id", about):
            raise TypeError("Recursion limit reached")
        return await real(self, about, *args)

    monkeypatch.setattr(BatchStore, method, broken)
    async with serving(tmp_path, work) as store:
        other = await stored_batch(store, bodies(2), "bob")
        assert await eventually(lambda: work.in_flight == 2)
        lost = await stored_batch(store, bodies(1), "ann")
        lost_id = lost.id
        work.released.set()
        await until(store, lost, status="in_progress", paused=UNEXPECTED)
        await until(store, other, status="completed", completed=2)
        last = await stored_batch(store, bodies(2), "bob")
        await until(store, last, status="completed", completed=2)
        lost_id = ""
        await until(store, lost, status="completed", completed=1, paused=None)
    assert sorted(work.begun) == ["ann r1", "bob r1", "bob r1", "bob r2", "bob r2"]


async def test_rows_that_cannot_be_answered_now_leave_the_room_to_other_batches(tmp_path: Path) -> None:
    work = ScriptedWork()

    def ends(job: Job) -> RowEnd:
        if job.batch.key_id == "ann":
            raise NotNow("ann is failed")
        return good()

    work.ends = ends
    async with serving(tmp_path, work, Limits(max_rows=2, poll_s=0.01, retry_s=0.01)) as store:
        failed = await stored_batch(store, bodies(5), "ann")
        await until(store, failed, paused="ann is failed")
        other = await stored_batch(store, bodies(5), "bob")
        await until(store, other, status="completed", completed=5)
        await until(store, failed, status="in_progress", completed=0)
        work.ends = lambda job: good()
        await until(store, failed, status="completed", completed=5)


async def test_of_a_batch_the_rows_that_can_be_answered_are_and_then_it_is_cancelled_at_once(tmp_path: Path) -> None:
    work = ScriptedWork()

    def ends(job: Job) -> RowEnd:
        if job.row.custom_id == "r1":
            raise NotNow("ann is failed")
        return good()

    work.ends = ends
    async with serving(tmp_path, work, Limits(max_rows=1, poll_s=0.01, retry_s=0.01)) as store:
        batch = await stored_batch(store, bodies(4))
        await until(store, batch, status="in_progress", completed=3)
        await store.cancel(batch.id)
        await until(store, batch, status="cancelled", completed=3)


async def test_rows_are_cut_a_few_at_a_time_so_that_requests_are_served_between(tmp_path: Path) -> None:
    work, turn, cut = ScriptedWork(holds=True), 0, Counter[int]()

    async def turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async def answer(job: Job) -> RowEnd:
        work.in_flight += 1
        try:
            await work.released.wait()
            return good()
        finally:
            cut[turn] += 1

    work.answer = answer  # type: ignore[method-assign]
    count = 3 * CANCELLED_AT_ONCE
    async with serving(tmp_path, work) as store:
        batch = await stored_batch(store, bodies(count))
        assert await eventually(lambda: work.in_flight == count)
        async with background(turns()):
            await store.cancel(batch.id)
            await until(store, batch, status="cancelled")
    assert cut.total() == count
    assert max(cut.values()) <= CANCELLED_AT_ONCE


async def test_a_batch_whose_file_is_gone_ends_with_errors(tmp_path: Path) -> None:
    async with serving(tmp_path, ScriptedWork()) as store:
        batch = await stored_batch(store, bodies(2))
        (tmp_path / "batches" / batch.input_file_id).unlink()
        await until(store, batch, status="completed", failed=2)


async def test_a_batch_whose_window_is_over_ends_with_what_it_has(tmp_path: Path) -> None:
    work = ScriptedWork(holds=True)
    async with serving(tmp_path, work) as store:
        batch = await stored_batch(store, bodies(2), window_s=0.5)
        assert (await until(store, batch, status="expired")).completed == 0
        assert work.in_flight == 0


async def test_a_row_that_failed_within_the_server_is_answered_all_the_same(tmp_path: Path) -> None:
    work = ScriptedWork()

    def broken_once(job: Job) -> RowEnd:
        work.ends = lambda job: good()
        raise ZeroDivisionError

    work.ends = broken_once
    async with serving(tmp_path, work) as store:
        batch = await stored_batch(store, bodies(3))
        await until(store, batch, status="completed", completed=3)
    assert len(work.begun) == 4
