"""Calls that a model writes as text: which are taken for calls, and what the run does with them."""

from dataclasses import replace

import pytest

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.written_calls import written_calls
from cappella.types import Sampling, ToolCall
from support.fake_engines import FakeEngines
from support.scripted_engine import Json, Script
from support.small_tools import adding

WRITTEN = '{"name": "add", "arguments": {"q": "2+3"}}'
PANEL = (
    Seat("ann", "ann", Sampling(temperature=0.7), tools=SeatTools(("box",), max_calls=2)),
    *(Seat(name, name, Sampling(temperature=0.7)) for name in ("bob", "cat")),
)


def has_results(body: Json) -> bool:
    return any(message["role"] == "tool" for message in body["messages"])


@pytest.mark.parametrize(
    "text",
    [
        WRITTEN,
        f"\n {WRITTEN}\n",
        f"```json\n{WRITTEN}\n```",
        f"```\n{WRITTEN}\n```",
        f"<tool_call>\n{WRITTEN}\n</tool_call>",
        f"{WRITTEN}\n{WRITTEN}",
        f"{WRITTEN}\n[S1] made up",
        f'{WRITTEN}\n{{"name": "add", "argum',
    ],
)
def test_a_text_that_begins_with_a_call_is_that_call(text: str) -> None:
    assert written_calls(text, {"add"}) == [ToolCall(0, name="add", arguments='{"q":"2+3"}')]


def test_different_calls_in_a_row_are_all_made() -> None:
    other = '{"name": "add", "arguments": {"q": "4+5"}}'
    calls = written_calls(f"{WRITTEN}\n{other}\n{WRITTEN}", {"add"})
    assert [(call.index, call.arguments) for call in calls] == [(0, '{"q":"2+3"}'), (1, '{"q":"4+5"}')]


@pytest.mark.parametrize(
    "text",
    [
        f"I call {WRITTEN}",
        '{"name": "divide", "arguments": {}}',
        '{"name": ["add"], "arguments": {}}',
        '{"name": "add", "arguments": "2+3"}',
        '{"name": "add"}',
        '{"name": "add", "arguments": {}, "id": 1}',
        '{"name": "add", "arguments": {"q": "2+',
        f"[{WRITTEN}]",
        "",
    ],
)
def test_any_other_text_is_an_answer(text: str) -> None:
    assert written_calls(text, {"add"}) == []


async def test_a_call_as_text_is_made_and_told_as_such(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    fake_engines.let("ann", lambda body: Script(("It is 5.",)) if has_results(body) else Script((WRITTEN,)))
    run = await fake_engines.run(panel=PANEL)
    assert box.asked == [("add", {"q": "2+3"})]
    assert [(use.seat, use.as_text) for use in run.tool_uses] == [("ann", True)]
    assert run.answers[0].content == "It is 5."
    said = fake_engines.servers["ann"].bodies[1]["messages"][-2]
    assert (said["content"], said["tool_calls"][0]["function"]["name"]) == ("", "add")


async def test_after_the_last_call_and_of_seats_without_tools_a_text_is_an_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    for name in ("ann", "bob"):
        fake_engines.let(name, Script((WRITTEN,)))
    run = await fake_engines.run(panel=PANEL)
    assert [use.seat for use in run.tool_uses] == ["ann", "ann"]
    assert [answer.content for answer in run.answers[:2]] == [WRITTEN, WRITTEN]


async def test_a_model_that_writes_calls_as_text_answers_from_what_it_found_without_tools(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.let("ann", lambda body: Script((WRITTEN,)) if "tools" in body else Script(("It is 5.",)))
    run = await fake_engines.run(panel=PANEL)
    last = fake_engines.servers["ann"].bodies[-1]
    assert [message["role"] for message in last["messages"] if message["role"] != "system"] == ["user"]
    text = last["messages"][-1]["content"]
    assert text.startswith("[result A ")
    assert text.count("\n5\n") == 1  # the same call again gave nothing new
    assert text.endswith(fake_engines.servers["bob"].bodies[0]["messages"][-1]["content"])
    assert run.answers[0].content == "It is 5."


async def test_an_answer_that_is_a_call_as_text_is_asked_for_once_more_without_tools(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    called = Script((), calls=(("add", '{"q": "2+3"}'),), finish_reason="tool_calls")
    turns = {None: Script(("It is 5.",)), "required": called, "none": Script((WRITTEN,))}
    fake_engines.let("ann", lambda body: turns[body.get("tool_choice")])
    tools = SeatTools(("box",), choice="required", max_calls=1)
    run = await fake_engines.run(panel=(Seat("ann", "ann", Sampling(), tools=tools), *PANEL[1:]))
    assert [body.get("tool_choice") for body in fake_engines.servers["ann"].bodies] == ["required", "none", None]
    assert box.asked == [("add", {"q": "2+3"})]
    assert run.answers[0].content == "It is 5."


async def test_a_judge_may_write_its_calls_as_text_too(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()

    def judge(body: Json) -> Script:
        last = str(body["messages"][-1]["content"])
        return Script((WRITTEN,)) if "look up with your tools" in last else Script(("The answer.",))

    fake_engines.let("judge", judge)
    run = await fake_engines.run(judge_tools=SeatTools(("box",)), analysis="off")
    assert box.asked == [("add", {"q": "2+3"})]
    assert [(use.seat, use.as_text) for use in run.tool_uses] == [("judge", True)]
    assert run.content == "The answer."


async def test_each_sample_that_writes_its_call_as_text_is_one_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    turns = {True: Script(samples=(WRITTEN, WRITTEN)), False: Script(samples=("It is 5.", "It is 6."))}
    fake_engines.let("ann", lambda body: turns["tools" in body])
    seat = replace(PANEL[0], samples=2, tools=SeatTools(("box",), max_calls=1))
    run = await fake_engines.run(panel=(seat, *PANEL[1:]))
    assert not run.failures
    assert [(answer.name, answer.content) for answer in run.answers[:2]] == [
        ("ann~1", "It is 5."),
        ("ann~2", "It is 5."),
    ]
    assert [body.get("n", 1) for body in fake_engines.servers["ann"].bodies] == [2, 1, 1]
