"""Times that a person is told."""

import pytest

from cappella.cli.client.durations import duration, remaining


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
