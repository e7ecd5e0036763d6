"""The remaining time of an evaluation."""

import io

from rich.console import Console

from cappella.evaluation.progress import Pace, showing


def test_the_time_is_by_the_recent_calls_of_each_way_and_not_by_what_was_kept() -> None:
    pace = Pace(at_once=2)
    pace.plan("ann", 10)
    pace.plan("judge", 5)
    for _ in range(4):
        pace.finish("ann", None)
    assert pace.remaining_s is None
    assert (pace.done, pace.total) == (4, 15)
    for seconds in (1.0, 1.0, 90.0):
        pace.finish("ann", seconds)
    # Three of ann and, as slow as the slowest way so far, five of the judge: two at once.
    assert pace.remaining_s == (3 * 1.0 + 5 * 1.0) / 2
    pace.finish("judge", 4.0)
    assert pace.remaining_s == (3 * 1.0 + 4 * 4.0) / 2


def test_a_way_that_turns_out_shorter_takes_less() -> None:
    pace = Pace(at_once=1)
    pace.plan("samples", 100)
    pace.plan("samples", 2)
    pace.finish("samples", 3.0)
    assert (pace.total, pace.remaining_s) == (2, 3.0)


def test_a_pipe_gets_a_line_now_and_then() -> None:
    times = iter([0.0, 10.0, 31.0, 31.0, 40.0])
    pace, out = Pace(at_once=1), io.StringIO()
    pace.plan("ann", 4)
    with showing(Console(file=out), pace, lambda: next(times)) as tell:
        for _ in range(3):
            pace.finish("ann", 2.0)
            tell("ann")
    assert out.getvalue().splitlines() == ["2 of 4 (ann), about 4 s left"]
