"""Debates, layers, reviews, early exits and gates whose members and judge look things up."""

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from cappella.config.options import Gate, Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.events import FinalDelta
from cappella.tools.base import Passage, ToolResult
from cappella.types import Sampling
from support.fake_engines import FakeEngines, eventually, judge_script, last_message
from support.scripted_engine import Json, Script
from support.small_tools import LEAVE, NOTICE, SmallTools, adding, searching

OTHER = Passage("handbook", "other.md", "line 1", "Other facts.")
ADD = Script((), calls=(("add", '{"q": "1+1"}'),), finish_reason="tool_calls")
BY_QUESTION = {"leave": LEAVE, "notice": NOTICE, "other": OTHER}


def handbook() -> SmallTools:
    """Finds the passage that is asked for."""
    return SmallTools("handbook", {"search": lambda asked: ToolResult(passages=[BY_QUESTION[asked["q"]]])})


def seat(name: str, *tools: str, **more: Any) -> Seat:
    return Seat(name, name, Sampling(temperature=0.7), tools=SeatTools(tools, **more))


def searches(question: str) -> Script:
    return Script((), calls=(("search", json.dumps({"q": question})),), finish_reason="tool_calls")


def results(body: Json) -> list[str]:
    return [each["content"] for each in body["messages"] if each["role"] == "tool"]


def is_later_round(body: Json) -> bool:
    return "[answer A " in str(next(each["content"] for each in body["messages"] if each["role"] == "user"))


def by_round(first: tuple[str, str], second: tuple[str, str]) -> Callable[[Json], Script]:
    """In each round it asks a question, then gives an answer."""

    def script(body: Json) -> Script:
        question, answer = second if is_later_round(body) else first
        return Script((answer,)) if results(body) else searches(question)

    return script


async def test_handles_are_one_each_over_the_rounds_of_a_debate_and_the_judge_reads_those_of_the_last_answers(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["handbook"] = box = handbook()
    fake_engines.let("ann", by_round(("leave", "Thirty [S1]."), ("other", "Thirty, I think.")))
    fake_engines.let("bob", by_round(("leave", "Fifty [S1]."), ("notice", "Fifty.")))
    panel = (seat("ann", "handbook"), seat("bob", "handbook"))
    run = await fake_engines.run(panel=panel, strategy="debate", analysis="off", early_prefill=False)
    assert [len(each.answers) for each in run.rounds] == [2, 2]
    assert Counter(asked["q"] for _, asked in box.asked) == Counter(["leave", "other", "notice"])
    assert run.sources
    found = {source.passage: source.handle for source in run.sources.found}
    assert sorted(found.values()) == ["S1", "S2", "S3"]
    assert found[LEAVE] == "S1"
    letters = {name: letter for letter, name in run.labels.items()}
    text = fake_engines.judge_prompt()
    assert f"[{found[OTHER]}] handbook/other.md, line 1, found by {letters['ann']}: " in text
    assert f"[{found[NOTICE]}] handbook/notice.md, page 2, found by {letters['bob']}: " in text
    assert text.count(LEAVE.text) == 1


async def test_a_debate_that_ends_in_agreement_has_its_citations_checked(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["handbook"] = handbook()
    fake_engines.let("ann", by_round(("leave", "Red [S1]."), ("other", "Red [S1][S9].")))
    fake_engines.let("bob", by_round(("leave", "Blue."), ("notice", "Red [S1][S9].")))
    run = await fake_engines.run(panel=(seat("ann", "handbook"), seat("bob", "handbook")), strategy="debate")
    assert (run.content, run.verdict.early_exit) == ("Red [S1].", "equal")
    assert fake_engines.servers["judge"].bodies == []
    assert run.sources
    assert (run.sources.cited, run.sources.removed) == (["S1"], ["S9"])


@pytest.mark.parametrize("strategy", ["synthesize", "debate"])
async def test_the_limit_on_calls_is_that_of_each_seat_in_each_round(fake_engines: FakeEngines, strategy: str) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    numbers = iter(range(100))

    def insatiable(body: Json) -> Script:
        call = Script((), calls=(("add", f'{{"q": "1+{next(numbers)}"}}'),), finish_reason="tool_calls")
        return Script((f"{body['model']}.",)) if body.get("tool_choice") == "none" else call

    for name in ("ann", "bob"):
        fake_engines.let(name, insatiable)
    panel = (seat("ann", "box", max_calls=1), seat("bob", "box", max_calls=3))
    run = await fake_engines.run(panel=panel, strategy=strategy, layers=2, analysis="off", early_prefill=False)
    assert Counter(use.seat for use in run.tool_uses) == {"ann": 2, "bob": 6}
    assert len(box.asked) == 8
    for name, calls in (("ann", 1), ("bob", 3)):
        last = [len(results(body)) for body in fake_engines.servers[name].bodies if body.get("tool_choice") == "none"]
        assert last == [calls, calls]
    assert run.status == "ok"


async def test_a_seat_must_call_a_tool_in_the_first_turn_of_each_round(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["handbook"] = handbook()
    fake_engines.let("ann", by_round(("leave", "One."), ("notice", "Two.")))
    panel = (seat("ann", "handbook", choice="required"), seat("bob"))
    await fake_engines.run(panel=panel, layers=2, analysis="off", early_prefill=False)
    bodies = fake_engines.servers["ann"].bodies
    assert [(is_later_round(body), body.get("tool_choice")) for body in bodies] == [
        (False, "required"),
        (False, None),
        (True, "required"),
        (True, None),
    ]


async def test_results_of_a_later_round_stand_between_marks_that_no_answer_of_the_round_before_had(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["handbook"] = handbook()
    fake_engines.let("ann", by_round(("leave", "One."), ("notice", "Two.")))
    await fake_engines.run(panel=(seat("ann", "handbook"), seat("bob")), layers=2, early_prefill=False)
    texts = ["".join(results(body)) for body in fake_engines.servers["ann"].bodies if results(body)]
    marks = [text.split("[result A ")[1][:8] for text in texts]
    assert len(marks) == len(set(marks)) == 2


async def test_a_round_below_the_quorum_leaves_the_judge_the_answers_of_the_round_before_with_what_they_cite(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["handbook"] = handbook()
    broken = Script(("so",), ending="break")
    first = by_round(("leave", "Thirty [S1]."), ("other", ""))
    fake_engines.let("ann", lambda body: broken if is_later_round(body) else first(body))
    fake_engines.let("bob", lambda body: broken if is_later_round(body) else Script(("Fifty.",)))
    run = await fake_engines.run(panel=(seat("ann", "handbook"), seat("bob")), layers=2, early_prefill=False)
    assert run.failure_reason == "layer_below_quorum"
    assert LEAVE.text in fake_engines.judge_prompt()


async def test_members_rank_without_tools_and_the_judge_reads_ranking_and_passages(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["handbook"] = box = handbook()

    def ann(body: Json) -> Script:
        if "Rank" in last_message(body) or "rank" in last_message(body):
            return Script(('["A", "B"]',))
        return Script(("Thirty [S1].",)) if results(body) else searches("leave")

    fake_engines.let("ann", ann)
    fake_engines.let("bob", lambda body: Script(('["B", "A"]',)) if "response_format" in body else Script(("Fifty.",)))
    panel = (seat("ann", "handbook"), seat("bob"))
    run = await fake_engines.run(panel=panel, review=True, analysis="off", early_prefill=False)
    assert run.ranking
    review = fake_engines.servers["ann"].bodies[-1]
    assert "response_format" in review
    assert "tools" not in review
    assert len(box.asked) == 1
    text = fake_engines.judge_prompt()
    assert LEAVE.text in text
    assert text.index(LEAVE.text) < text.index("rank")


@pytest.mark.parametrize("early_exit", ["equal", "judge"])
async def test_an_early_exit_returns_an_answer_with_its_sources_and_the_judge_looks_nothing_up(
    fake_engines: FakeEngines, early_exit: str
) -> None:
    fake_engines.tool_servers |= {"handbook": handbook(), "box": (box := adding())}
    for name, answer in (("ann", "Thirty [S1]."), ("bob", "Thirty [S1]." if early_exit == "equal" else "It is 30.")):
        fake_engines.let(name, by_round(("leave", answer), ("leave", answer)))

    def judge(body: Json) -> Script:
        return Script(("yes",)) if "structured_outputs" in body else ADD

    fake_engines.let("judge", judge)
    panel = (seat("ann", "handbook"), seat("bob", "handbook"))
    run = await fake_engines.run(
        panel=panel, early_exit=early_exit, judge_tools=SeatTools(("box",)), early_prefill=False
    )
    assert (run.content, run.verdict.early_exit) == ("Thirty [S1].", early_exit)
    assert box.asked == []
    assert run.sources
    assert run.sources.cited == ["S1"]
    asked = fake_engines.servers["judge"].bodies
    assert [LEAVE.text in last_message(body) for body in asked] == ([] if early_exit == "equal" else [True])
    places = [each.at for event in fake_engines.events if isinstance(event, FinalDelta) for each in event.citations]
    assert places == [7]


async def test_a_judge_that_does_not_agree_looks_up_before_it_writes(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    roles = judge_script()

    def judge(body: Json) -> Script:
        if "structured_outputs" in body:
            return Script(("no",))
        looks_up = body.get("tool_choice") is None and not results(body)
        return ADD if looks_up else roles(body)

    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script((f"{name} says so.",)))
    fake_engines.let("judge", judge)
    run = await fake_engines.run(
        early_exit="judge", judge_tools=SeatTools(("box",)), analysis="off", early_prefill=False
    )
    assert (run.content, run.verdict.early_exit) == ("The final answer", "off")
    assert len(box.asked) == 1
    assert [call.role for call in run.calls if call.seat == "judge"] == ["agreement", "lookup", "lookup", "final"]


async def test_a_gate_that_bypasses_the_panel_offers_no_tools_and_one_that_does_not_lets_it_look_up(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["handbook"] = box = handbook()
    fake_engines.let("ann", by_round(("leave", "Thirty [S1]."), ("leave", "")))
    fake_engines.let("bob", Script(("Hi [S1].",)))
    panel = (seat("ann", "handbook"), seat("bob"))
    gate = Gate(mode="rules", model="bob", max_words=3)
    options: dict[str, Any] = {"panel": panel, "gate": gate, "judge_tools": SeatTools(("handbook",)), "analysis": "off"}
    alone = await fake_engines.run("Hi there.", **options)
    assert (alone.status, alone.content, alone.sources) == ("bypassed", "Hi [S1].", None)
    assert "tools" not in fake_engines.servers["bob"].bodies[-1]
    assert (box.asked, list(alone.tool_uses), dict(alone.missing_tools)) == ([], [], {})
    judged = await fake_engines.run("How many days of leave are there?", **options)
    assert judged.status == "ok"
    assert [use.seat for use in judged.tool_uses] == ["ann"]


async def test_a_member_that_is_cut_in_a_later_round_gives_its_calls_up(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["handbook"] = box = searching(LEAVE)

    def ann(body: Json) -> Script:
        if is_later_round(body):
            box.holds = True
            return Script((), calls=(("search", '{"q": "slow"}'),), finish_reason="tool_calls")
        return Script(("Thirty [S1].",)) if results(body) else searches("leave")

    fake_engines.let("ann", ann)
    late = asyncio.Semaphore(0)
    breaks = Script(("so",), pace=late, ending="break")
    fake_engines.let("bob", lambda body: breaks if is_later_round(body) else Script(("Fifty.",)))
    panel = (seat("ann", "handbook"), seat("bob"))
    running = asyncio.create_task(
        fake_engines.run(panel=panel, layers=2, grace_s="never", analysis="off", early_prefill=False)
    )
    assert await eventually(lambda: len(box.asked) == 2)
    late.release()
    run = await running
    assert [failure.reason for failure in run.failures] == ["quorum_unreachable", "engine_broke"]
    assert run.content == "The final answer"
    assert await eventually(lambda: box.given_up == 1)
    assert [(use.is_error, use.shared) for use in run.tool_uses] == [(False, False), (True, False)]
