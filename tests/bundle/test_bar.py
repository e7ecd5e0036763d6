"""The line that says how far a copy is."""

import sys

import pytest

from cappella.bundle.bar import Bar


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_log_gets_a_line_now_and_then_and_nothing_of_what_is_soon_over(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with Bar("copying", 2_000_000_000, clock=clock) as bar:
        for _ in range(5):
            clock.now_s += 5
            bar.add(50_000_000)
    assert capsys.readouterr().err == ""
    with Bar("copying", 2_000_000_000, clock=clock) as bar:
        for _ in range(7):
            clock.now_s += 5
            bar.add(50_000_000)
    assert capsys.readouterr().err == "copying: 350 MB of 2 GB, 10 MB/s, about 3 min left\n"


def test_a_terminal_gets_a_line_that_is_not_full_before_the_end_and_is_gone_after_it(
    clock: Clock, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with Bar("copying", 1000, clock=clock) as bar:
        bar.skip(500)
        for _ in range(4):
            clock.now_s += 1
            bar.add(100)
        drawn = capsys.readouterr().err.split("\r\x1b[2K")
        assert drawn[1].startswith("copying ━━━━━━━━━━━━━━╌╌╌╌╌╌╌╌╌╌ 600 B of 1 kB")
        # What was there already says nothing of the speed.
        assert drawn[4] == "copying ━━━━━━━━━━━━━━━━━━━━━╌╌╌ 900 B of 1 kB, 100 B/s, about 1 s left"
    assert capsys.readouterr().err == "\r\x1b[2K"
