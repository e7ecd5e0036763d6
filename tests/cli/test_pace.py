"""Speeds and times that a person is told."""

import pytest

from cappella.pace import Pace, duration, remaining


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_what_was_there_before_is_no_work_and_old_speed_is_forgotten() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.note(1000)
    assert [pace.per_s] == [None]
    clock.now_s = 10
    pace.note(2000)
    assert [pace.per_s, pace.left_s(500)] == [100, 5]
    for second in range(11, 60):
        clock.now_s = second
        pace.note(2000 + 10 * (second - 10))
    assert pace.per_s == pytest.approx(10)


def test_nothing_is_promised_at_once_nor_while_it_stands_still() -> None:
    clock = Clock()
    pace = Pace(clock)
    pace.note(0)
    clock.now_s = 1
    pace.note(500)
    assert (pace.per_s, pace.left_s(100)) == (None, None)
    clock.now_s = 1000
    pace.note(500)
    clock.now_s = 1020
    pace.note(500)
    assert (pace.per_s, pace.left_s(100)) == (0, None)


@pytest.mark.parametrize(
    ("seconds", "says"), [(0.84, "0.8 s"), (12.4, "12 s"), (99, "99 s"), (180, "3 min"), (7500, "2 h 5 min")]
)
def test_a_duration_is_as_exact_as_a_person_wants(seconds: float, says: str) -> None:
    assert duration(seconds) == says


@pytest.mark.parametrize(
    ("seconds", "says"),
    [
        (None, ""),
        (0.0, "about 1 s left"),
        (7.4, "about 7 s left"),
        (43, "about 45 s left"),
        (70, "about a minute left"),
        (95, "about 2 min left"),
        (3700, "about 1 h 2 min left"),
    ],
)
def test_what_is_left_is_no_more_exact_than_a_guess(seconds: float | None, says: str) -> None:
    assert remaining(seconds) == says
