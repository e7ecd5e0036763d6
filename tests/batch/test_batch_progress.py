"""How far a batch is: calls by engine, and the time that is left, told once it can be believed."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from cappella.batch.progress import MIN_ROWS, TOKENS_WINDOW_S, BatchProgress, EngineProgress, Meter, Progress
from cappella.batch.types import Batch
from support.batch_gateway import answering, batch_config, ends, now
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Script
from support.stored_batches import body, stored_batch

MEMBER_S, JUDGE_S = 2.0, 4.0


class Measured:
    """A meter whose clock the test moves on."""

    def __init__(self, **groups: int | None) -> None:
        self.time = 100.0
        self.groups = groups
        self.meter = Meter(lambda: self.time)

    def phase(self, name: str) -> EngineProgress:
        return next(each for each in self.meter.phases() if each["model"] == name)

    @contextmanager
    def call(self, name: str, seconds: float, tokens: int = 10) -> Iterator[None]:
        """A call of a row of its own that takes so long; the row goes on in the context, and then has ended."""
        with self.meter.row(self.groups) as row:
            with row.runs(name):
                self.time += seconds
                row.finished(name, tokens)
            yield
            row.has_ended = True

    def rows(self, count: int, **seconds: float) -> None:
        """Rows that make one call of each engine, one after another."""
        for _ in range(count):
            with self.meter.row(self.groups) as row:
                for name, each in seconds.items():
                    with row.runs(name):
                        self.time += each
                        row.finished(name, 10)
                row.has_ended = True


def test_calls_wait_run_and_finish_and_replayed_ones_were_not_made() -> None:
    made = Measured(ann=None)
    with made.meter.row(made.groups) as row, ExitStack() as stack:
        with row.waits("ann"):
            assert made.phase("ann") == {"model": "ann", "done": 0, "waiting": 1, "running": 0, "tokens_per_s": None}
        stack.enter_context(row.runs("ann"))
        row.replayed("ann")
        assert made.phase("ann") == {"model": "ann", "done": 0, "waiting": 0, "running": 1, "tokens_per_s": None}
        row.finished("ann", 10)
        stack.close()
        assert made.phase("ann")["done"] == 1
        assert made.phase("ann")["running"] == 0


def test_tokens_per_second_are_those_of_the_last_seconds_at_work() -> None:
    made = Measured(ann=None)
    with made.meter.row(made.groups) as row, row.runs("ann"):
        made.time += 4.0
        row.finished("ann", 100)
        assert made.phase("ann")["tokens_per_s"] == 25.0
        made.time += TOKENS_WINDOW_S + 1
        assert made.phase("ann")["tokens_per_s"] is None
        row.finished("ann", 200)
        assert made.phase("ann")["tokens_per_s"] == round(200 / (TOKENS_WINDOW_S + 1), 1)
    assert made.phase("ann")["tokens_per_s"] is None  # Nothing runs.


def test_the_time_left_is_not_told_before_enough_rows_have_ended() -> None:
    made = Measured(ann=None)
    made.rows(MIN_ROWS - 1, ann=MEMBER_S)
    assert made.meter.remaining_s(5) is None
    made.rows(1, ann=MEMBER_S)
    assert made.meter.remaining_s(5) == 5 * MEMBER_S


def test_of_engines_that_work_side_by_side_the_slowest_counts() -> None:
    made = Measured(ann=None, judge=None)
    made.rows(MIN_ROWS, ann=MEMBER_S, judge=JUDGE_S)
    assert made.meter.remaining_s(5) == 5 * JUDGE_S


def test_groups_that_take_turns_add_up_and_an_engine_that_is_always_awake_works_beside_them() -> None:
    made = Measured(ann=0, bob=1, cat=1, judge=None)
    made.rows(MIN_ROWS, ann=1.0, bob=2.0, cat=3.0, judge=1.0)
    assert made.meter.remaining_s(5) == 5 * (1.0 + 3.0)
    slow_judge = Measured(ann=0, bob=1, judge=None)
    slow_judge.rows(MIN_ROWS, ann=1.0, bob=1.0, judge=9.0)
    assert slow_judge.meter.remaining_s(5) == 5 * 9.0


def test_time_without_a_call_does_not_count_as_work() -> None:
    made = Measured(ann=None)
    made.rows(MIN_ROWS // 2, ann=MEMBER_S)
    made.time += 3600
    made.rows(MIN_ROWS // 2, ann=MEMBER_S)
    assert made.meter.remaining_s(3) == 3 * MEMBER_S


def test_calls_that_rows_in_flight_have_had_are_not_expected_again() -> None:
    made = Measured(ann=None, judge=None)
    made.rows(MIN_ROWS, ann=MEMBER_S, judge=1.0)
    with made.call("ann", MEMBER_S), made.call("ann", MEMBER_S):
        # Of three rows that are left two have had their member's call.
        assert made.meter.remaining_s(3) == pytest.approx(max(1 * MEMBER_S, 3 * 1.0))


def test_a_row_that_was_not_answered_counts_anew() -> None:
    made = Measured(ann=None)
    made.rows(MIN_ROWS, ann=MEMBER_S)
    with made.meter.row(made.groups) as row, row.runs("ann"):
        made.time += MEMBER_S
        row.finished("ann", 1)
    assert made.phase("ann")["done"] == MIN_ROWS + 1
    assert made.meter.remaining_s(1) == MEMBER_S


async def test_a_batch_tells_its_calls_and_why_it_does_not_go_on(fake_engines: FakeEngines, tmp_path: Path) -> None:
    fake_engines.let("judge", Script(ending="held"))
    async with answering(fake_engines, batch_config(tmp_path, sequences=2)) as store:
        batch = await stored_batch(store, [body(f"Question {number}.") for number in range(4)])
        assert await eventually(lambda: len(fake_engines.servers["judge"].bodies) == 2)

        async def told(hours: str | None = None) -> BatchProgress | None:
            return store.progress.told(await now(store, batch), hours)

        def is_settled() -> bool:
            return sum(each["waiting"] for each in store.progress.meter(batch.id).phases()) == 2

        assert await eventually(is_settled)
        found = await told()
        assert found
        assert {each["model"]: (each["done"], each["running"]) for each in found["phases"]} == {
            "ann": (4, 0),
            "bob": (4, 0),
            "cat": (4, 0),
            "judge": (0, 2),
        }
        assert (found["paused"], found["remaining_s"]) == (None, None)
        never = "00:00-00:00"
        found = await told(never)
        assert found
        assert found["paused"] == f"It goes on between {never} (server.batch.when)."
        store.pause(batch.id, "The disk is full.")
        found = await told()
        assert found
        assert found["paused"] == "The disk is full."
        fake_engines.release()
        await ends(store, batch)
        assert await told() is None


def test_a_batch_that_is_not_answered_yet_has_no_phases() -> None:
    waiting = Batch(
        "batch_1", None, "openai", "/v1/chat/completions", "in_progress", 0.0, 1.0, "f", None, None, None, None,
        (), {}, 1, 0, 0, 0, "",
    )  # fmt: skip
    assert Progress().told(waiting, None) == {"phases": [], "remaining_s": None, "paused": None}
    assert Progress().told(replace(waiting, status="completed"), None) is None
