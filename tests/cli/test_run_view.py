"""What a client knows of a run, out of the events of its stream, and how much of it fits a screen."""

from typing import Any

import pytest
from rich.console import Console

from cappella.cli.client.panes import Panes, Writing
from cappella.run_view import View


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def heard(*events: dict[str, Any], clock: Clock | None = None) -> View:
    view = View("cappella/default", clock or Clock())
    for event in events:
        view.add({"choices": [], "fusion_event": event})
    return view


def screen(view: View, width: int = 80, height: int = 24) -> list[str]:
    console = Console(width=width, height=height, highlight=False)
    with console.capture() as capture:
        console.print(Panes(view))
    return capture.get().splitlines()


def started(*panel: str) -> dict[str, Any]:
    return {"type": "run.started", "run_id": "run-1", "panel": list(panel), "judge": "judge"}


def gated(bypass: bool) -> dict[str, Any]:
    return {"type": "gate.decided", "bypass": bypass, "model": "ann", "reason": "short"}


def test_who_answers_alone_is_waited_for_alone_and_the_panel_if_that_fails() -> None:
    view = heard(started("ann", "bob"), gated(bypass=True))
    assert "waiting on ann, 0.0 s" in screen(view)[-1]
    assert len(screen(view)) == 1
    view.add({"choices": [], "fusion_event": gated(bypass=False)})
    assert "waiting on ann, bob" in screen(view)[-1]


def test_a_member_that_thinks_and_one_that_was_cut_are_told_apart() -> None:
    clock = Clock()
    thought = {"type": "answer.delta", "model": "ann", "delta": "", "reasoning": "hm"}
    cut = {"type": "answer.failed", "model": "bob", "reason": "straggler", "error": "too late", "status_code": 504}
    view = heard(started("ann", "bob"), thought, cut, clock=clock)
    clock.now_s += 12
    ann, bob, status = (line for line in screen(view, 60) if line.strip())
    assert ann.endswith(" thinks, about 1 tokens, 0/s")
    assert bob.endswith(" straggler: too late")
    assert status.endswith("waiting on ann, 12 s, 1 of 2 are done")
    assert (view.members["bob"].state, view.awaited) == ("cancelled", ["ann"])


def test_who_wakes_and_without_whom_it_is_answered_soon_is_told() -> None:
    clock = Clock()
    wakes = {"type": "engine.waiting", "model": "bob", "reason": "asleep"}
    queued = {"type": "engine.waiting", "model": "cat", "reason": "swap"}
    done = {"type": "answer.done", "model": "ann", "tokens": 3, "ms": 100.0}
    grace = {"type": "grace.started", "models": ["bob", "cat"], "quorum_ms": 100.0, "grace_ms": 20_000.0}
    view = heard(started("ann", "bob", "cat"), wakes, queued, done, grace, clock=clock)
    clock.now_s += 8
    _, bob, cat, status = (line for line in screen(view, 90) if line.strip())
    assert bob.endswith(" was asleep, and wakes, 8.0 s")
    assert cat.endswith(" waits for its turn, 8.0 s")
    assert "without" not in status
    for name in ("bob", "cat"):
        view.add({"choices": [], "fusion_event": {"type": "engine.awake", "model": name, "ms": 8000.0}})
    assert screen(view, 90)[-1].endswith("; answer without them in 12 s")


def test_a_judge_that_wakes_is_not_yet_reading() -> None:
    done = {"type": "answer.done", "model": "ann", "tokens": 3, "ms": 100.0}
    view = heard(started("ann"), done, {"type": "engine.waiting", "model": "judge", "reason": "asleep"})
    assert "judge was asleep, and wakes" in screen(view)[-1]
    view.add({"choices": [], "fusion_event": {"type": "engine.awake", "model": "judge", "ms": 8000.0}})
    assert "judge reads the answers" in screen(view)[-1]


@pytest.mark.parametrize("event", [{"judge": None}, {}])
def test_a_run_without_a_judge_compares_the_answers_all_the_same(event: dict[str, Any]) -> None:
    began = {"type": "run.started", "run_id": "run-1", "panel": ["ann"], **event}
    view = heard(began, {"type": "answer.done", "model": "ann", "tokens": 3, "ms": 100.0})
    assert "the answers are compared" in screen(view)[-1]


def test_the_judge_that_thinks_is_no_judge_that_reads() -> None:
    view = heard(started("ann"), {"type": "answer.done", "model": "ann", "tokens": 3, "ms": 100.0})
    assert "judge reads the answers" in screen(view)[-1]
    view.add({"choices": [{"delta": {"reasoning": "hm"}}]})
    assert "judge thinks" in screen(view)[-1]


@pytest.mark.parametrize("members", [1, 2, 3, 8, 40])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (40, 10), (200, 60), (20, 3)])
def test_nothing_is_ever_higher_or_wider_than_the_screen(members: int, width: int, height: int) -> None:
    names = [f"member{number}" for number in range(members)]
    view = heard(started(*names))
    for name in names:
        view.members[name].text, view.members[name].first_at = "long words " * 500, 90.0
        view.members[name].state = "writing"
    for analysing in (False, True):
        if analysing:
            for name in names:
                view.add({"fusion_event": {"type": "answer.done", "model": name, "tokens": 1, "ms": 1.0}})
            view.add({"fusion_event": {"type": "analysis.started"}})
            said = '{"consensus": [' + '"they agree on much", ' * 100
            view.add({"fusion_event": {"type": "analysis.delta", "delta": said}})
        lines = screen(view, width, height)
        assert len(lines) <= height
        assert max(map(len, lines)) <= width


def test_an_analysis_that_is_written_beside_the_answer_is_seen_below_it() -> None:
    view = heard(started("ann"), {"type": "analysis.started", "labels": {"A": "ann"}})
    view.add({"fusion_event": {"type": "analysis.delta", "delta": '{"unique_insights": [{"model": "A", "insight": "i'}})
    view.add({"choices": [{"delta": {"content": "The answer"}}]})
    console = Console(width=80, highlight=False)
    with console.capture() as capture:
        console.print(Writing(view, "The answer"))
    answer, heading, line, status = capture.get().splitlines()
    assert [answer, heading, line.strip()] == ["The answer", "Only one says", "• ann: i"]
    assert "judge writes, about 1 tokens" in status


def test_what_a_member_says_before_it_calls_a_tool_is_no_part_of_its_answer() -> None:
    said, answer = ({"type": "answer.delta", "model": "ann", "delta": text} for text in ("Let me see.", "Five."))
    view = heard(started("ann"), said, {"type": "tool.called", "model": "ann", "tool": "add"}, answer)
    assert view.members["ann"].text == "Five."
