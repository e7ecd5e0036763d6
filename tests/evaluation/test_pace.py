"""The remaining time of an evaluation."""

from cappella.evaluation.progress import Pace


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
