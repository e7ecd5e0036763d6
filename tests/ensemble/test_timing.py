"""Timings of runs whose calls have known times."""

import pytest

from cappella.ensemble.run import Answer, Call, Panel, Role
from cappella.ensemble.timing import timings
from cappella.types import Usage


def call(role: Role, began_at: float, total_s: float, first_token_s: float | None = None, cached: int = 0) -> Call:
    return Call(role, "x", Usage(prompt_tokens=100, cached_tokens=cached), began_at, first_token_s, total_s)


def panel_of(*calls: Call) -> Panel:
    return Panel([Answer(f"m{number}", "text", "stop", each) for number, each in enumerate(calls)], [], calls)


def test_a_plain_run() -> None:
    members = [call("panel", 10.1, 1.0), call("panel", 10.1, 3.0)]
    final = call("final", 13.2, 2.0, first_token_s=0.5, cached=60)
    measured = timings(10.0, 13.1, 13.7, 15.25, [panel_of(*members)], [*members, call("prefill", 12.0, 0.3), final])
    assert measured.panel_s == pytest.approx(3.1)
    assert measured.floor_s == pytest.approx(3.0 + 1.5)
    assert measured.overhead_s == pytest.approx(0.1 + 0.1 + 0.05)
    assert measured.judge_first_token_s == pytest.approx(0.6)
    assert measured.first_token_s == pytest.approx(3.7)
    assert (measured.early_prefill_tokens, measured.late_prefill_tokens) == (100, 40)


def test_an_analysis_before_the_answer_adds_to_the_floor_and_one_alongside_does_not() -> None:
    member = call("panel", 0.0, 1.0)
    before = [call("analysis", 1.0, 2.0, first_token_s=0.5), call("final", 3.0, 2.0, first_token_s=0.5)]
    alongside = [call("analysis", 1.0, 2.0, first_token_s=0.5), call("final", 1.0, 2.0, first_token_s=0.5)]
    for calls, floor_s in ((before, 1.0 + 1.5 + 1.5), (alongside, 1.0 + 1.5)):
        measured = timings(0.0, 1.0, 3.5, 5.0, [panel_of(member)], [member, *calls])
        assert measured.floor_s == pytest.approx(floor_s)
        assert measured.analysis_s == 2.0


def test_each_round_of_the_panel_counts_with_its_slowest_member() -> None:
    rounds = [panel_of(call("panel", 0.0, 1.0), call("panel", 0.0, 2.0)), panel_of(call("panel", 2.0, 0.5))]
    measured = timings(0.0, 2.5, None, 2.5, rounds, [each for panel in rounds for each in panel.calls])
    assert measured.floor_s == pytest.approx(2.5)
    assert (measured.judge_first_token_s, measured.late_prefill_tokens, measured.overhead_s) == (None, 0, 0.0)
