"""Members that look things up before they answer, over scripted engines and a small server of tools."""

import asyncio
from collections.abc import Callable
from typing import Any

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.events import ToolCalled, ToolReturned
from cappella.tools.base import ToolResult
from cappella.types import OutputFormat, Prompt, Sampling
from support.fake_engines import MEMBERS, FakeEngines, eventually
from support.scripted_engine import Json, Script
from support.small_tools import LEAVE, NOTICE, SmallTools, adding, searching


def seats(*servers: str, names: tuple[str, ...] = MEMBERS, samples: int = 1, **tools: Any) -> tuple[Seat, ...]:
    """Seats that all have these tools."""
    used = SeatTools(servers, **tools)
    return tuple(Seat(name, name, Sampling(temperature=0.7), samples=samples, tools=used) for name in names)


def results(body: Json) -> list[str]:
    """The results of tools in a request."""
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def calling(*calls: tuple[str, str], answer: str = "It is 5.") -> Callable[[Json], Script]:
    """Makes these calls at once, then answers."""
    called = Script((), calls=calls, finish_reason="tool_calls")
    return lambda body: Script((answer,)) if results(body) else called


def all_bodies(fake_engines: FakeEngines, name: str) -> list[Json]:
    return fake_engines.servers[name].bodies


async def test_a_member_calls_a_tool_reads_its_result_and_answers(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    fake_engines.let("ann", calling(("add", '{"q": "2+3"}')))
    run = await fake_engines.run(panel=(*seats("box", names=("ann",)), *seats(names=("bob", "cat"))))
    first, second = all_bodies(fake_engines, "ann")
    assert [tool["function"]["name"] for tool in first["tools"]] == ["add"]
    assert "tools" not in all_bodies(fake_engines, "bob")[0]
    assert box.asked == [("add", {"q": "2+3"})]
    call, result = second["messages"][-2:]
    assert call["tool_calls"][0]["function"] == {"name": "add", "arguments": '{"q": "2+3"}'}
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert "\n5\n" in result["content"]
    assert run.answers[0].content == "It is 5."
    assert not run.answers[0].tool_calls
    assert run.status == "ok"


async def test_every_engine_call_of_a_loop_is_recorded_and_every_tool_call_told(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.let("ann", calling(("add", '{"q": "2+3"}')))
    run = await fake_engines.run(panel=seats("box"))
    assert [(call.role, call.seat) for call in run.calls if call.role in ("lookup", "panel")] == [
        ("lookup", "ann"),
        ("panel", "ann"),
        ("panel", "bob"),
        ("panel", "cat"),
    ]
    assert [call.seat for call in run.answers[0].lookups] == ["ann"]
    (use,) = run.tool_uses
    assert (use.seat, use.server, use.tool, use.arguments) == ("ann", "box", "add", '{"q": "2+3"}')
    assert (use.is_error, use.shared, use.result_chars) == (False, False, 1)
    told = [event for event in fake_engines.events if isinstance(event, ToolCalled | ToolReturned)]
    assert [type(event) for event in told] == [ToolCalled, ToolReturned]


async def test_all_calls_of_one_turn_are_made_at_once(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    box.holds = True
    fake_engines.let("ann", calling(("add", '{"q": "1+1"}'), ("add", '{"q": "2+2"}')))
    running = asyncio.create_task(fake_engines.run(panel=seats("box"), grace_s="never"))
    assert await eventually(lambda: len(box.asked) == 2)
    box.released.set()
    await running
    assert [text.split("\n")[-2] for text in results(all_bodies(fake_engines, "ann")[-1])] == ["2", "4"]


async def test_after_the_last_call_it_is_asked_for_an_answer_and_may_call_no_more(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()

    def script(body: Json) -> Script:
        call = Script((), calls=(("add", f'{{"q": "1+{len(results(body))}"}}'),), finish_reason="tool_calls")
        return Script(("Three.",)) if body.get("tool_choice") == "none" else call

    fake_engines.let("ann", script)
    run = await fake_engines.run(panel=seats("box", max_calls=3))
    assert [arguments["q"] for _, arguments in box.asked] == ["1+0", "1+1", "1+2"]
    assert [body.get("tool_choice") for body in all_bodies(fake_engines, "ann")] == [None, None, None, "none"]
    assert run.answers[0].content == "Three."


async def test_a_model_that_repeats_an_answered_call_is_asked_for_its_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    called = Script((), calls=(("add", '{"q": "1+1"}'),), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: Script(("Two.",)) if body.get("tool_choice") == "none" else called)
    run = await fake_engines.run(panel=seats("box", max_calls=8))
    assert len(box.asked) == 1  # alike calls are made once
    assert len([use for use in run.tool_uses if use.seat == "ann"]) == 2
    assert [body.get("tool_choice") for body in all_bodies(fake_engines, "ann")] == [None, None, "none"]
    assert "answer now" in results(all_bodies(fake_engines, "ann")[-1])[-1]
    assert run.answers[0].content == "Two."


async def test_a_model_that_still_calls_tools_then_gave_no_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.let("ann", Script((), calls=(("add", '{"q": "1+1"}'),), finish_reason="tool_calls"))
    run = await fake_engines.run(panel=seats("box", max_calls=1))
    assert [(failure.name, failure.reason) for failure in run.failures] == [("ann", "empty_answer")]
    assert len(all_bodies(fake_engines, "ann")) == 2


async def test_a_seat_that_must_call_a_tool_must_only_in_its_first_turn(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    call = {"2": Script((), calls=(("add", '{"q": "2+2"}'),), finish_reason="tool_calls"), "4": Script(("Four.",))}
    begin = Script((), calls=(("add", '{"q": "1+1"}'),), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: call[results(body)[-1].split("\n")[-2]] if results(body) else begin)
    must = seats("box", names=("ann",), choice="required")
    run = await fake_engines.run(panel=(*must, *seats("box", names=("bob", "cat"))))
    assert [body.get("tool_choice") for body in all_bodies(fake_engines, "ann")] == ["required", None, None]
    assert "tool_choice" not in all_bodies(fake_engines, "bob")[0]
    assert run.answers[0].content == "Four."


async def test_a_seat_that_must_call_answers_at_once_where_all_its_tools_are_away(fake_engines: FakeEngines) -> None:
    run = await fake_engines.run(panel=seats("box", choice="required"))
    assert "tool_choice" not in all_bodies(fake_engines, "ann")[0]
    assert run.missing_tools == {"box": "unavailable"}
    assert len(run.answers) == 3


async def test_passages_have_handles_documents_and_places(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["handbook"] = searching(LEAVE, NOTICE)
    fake_engines.let("ann", calling(("search", '{"q": "leave"}')))
    await fake_engines.run(panel=seats("handbook"))
    (text,) = results(all_bodies(fake_engines, "ann")[-1])
    assert "[S1] handbook/leave.md, lines 10-14: Everyone has 30 days of leave." in text
    assert "[S2] handbook/notice.md, page 2: " in text
    assert "as [S1]" in text


async def test_the_text_before_a_call_is_no_part_of_the_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    thought = Script(("Let me see.",), "Hm.", (("add", '{"q": "1+1"}'),), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: Script(("Two.",), "Aha.") if results(body) else thought)
    run = await fake_engines.run(panel=seats("box"))
    assert (run.answers[0].content, run.answers[0].reasoning) == ("Two.", "Hm.\n\nAha.")
    said = all_bodies(fake_engines, "ann")[1]["messages"][-2]
    assert (said["content"], said["reasoning"]) == ("Let me see.", "Hm.")


async def test_what_cannot_be_called_is_told_to_the_model_and_counted(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    fake_engines.let("ann", calling(("divide", "{}"), ("add", "[1]"), ("add", '{"q": "1+')))
    run = await fake_engines.run(panel=seats("box"))
    unknown, *no_object = results(all_bodies(fake_engines, "ann")[-1])
    assert "There is no tool of this name" in unknown
    assert all("no JSON object" in text for text in no_object)
    assert [(use.server, use.is_error) for use in run.tool_uses] == [(None, True)] * 3
    assert box.asked == []
    # Chat templates read arguments as JSON objects.
    written = all_bodies(fake_engines, "ann")[-1]["messages"][-4]["tool_calls"]
    assert [call["function"]["arguments"] for call in written] == ["{}"] * 3
    assert run.answers[0].content == "It is 5."


async def test_servers_that_are_away_or_withheld_offer_nothing_and_the_run_tells_it(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers |= {
        "box": adding(),
        "wiki": SmallTools("wiki", {"read": lambda _: ToolResult("x")}, problem="it is starting"),
        "secret": searching(LEAVE, name="secret"),
    }
    run = await fake_engines.run(panel=seats("box", "wiki", "secret"), withheld_tools=frozenset({"secret"}))
    offered = all_bodies(fake_engines, "ann")[0]["tools"]
    assert [tool["function"]["name"] for tool in offered] == ["add"]
    assert run.missing_tools == {"wiki": "unavailable", "secret": "withheld"}


async def test_a_name_that_two_servers_have_is_told_apart_by_the_server(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers |= {"one": adding("one"), "two": adding("two")}
    fake_engines.let("ann", calling(("two_add", '{"q": "1+1"}')))
    run = await fake_engines.run(panel=seats("one", "two"))
    offered = all_bodies(fake_engines, "ann")[0]["tools"]
    assert [tool["function"]["name"] for tool in offered] == ["one_add", "two_add"]
    assert [(use.server, use.tool) for use in run.tool_uses] == [("two", "add")]


async def test_the_tools_of_the_caller_go_to_seats_without_their_own_and_to_the_judge(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    weather = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    panel = (*seats("box", names=("ann",)), *seats(names=("bob", "cat")))
    prompt = Prompt([{"role": "user", "content": "Hi"}], tools=[weather], tool_choice="required")
    await fake_engines.put(prompt, panel=panel, analysis="off")
    names = {
        name: [tool["function"]["name"] for tool in all_bodies(fake_engines, name)[-1]["tools"]]
        for name in ("ann", "bob", "judge")
    }
    assert names == {"ann": ["add"], "bob": ["weather"], "judge": ["weather"]}
    assert "tool_choice" not in all_bodies(fake_engines, "ann")[0]


async def test_each_sample_looks_up_on_its_own(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    asked: list[Json] = []

    def script(body: Json) -> Script:
        asked.append(body)
        call = Script((), calls=(("add", '{"q": "2+2"}'),), samples=("", "Four."), finish_reason="tool_calls")
        return Script(("It is 4.",)) if results(body) else call

    fake_engines.let("ann", script)
    seat = Seat(
        "ann", "ann", Sampling(temperature=0.7, seed=7), samples=2, tools=SeatTools(("box",), choice="required")
    )
    run = await fake_engines.run(panel=(seat,), quorum=2)
    assert {answer.name: answer.content for answer in run.answers} == {"ann~1": "It is 4.", "ann~2": "Four."}
    assert [use.seat for use in run.tool_uses] == ["ann~1"]
    assert [(body.get("n"), body["seed"]) for body in asked] == [(2, 7), (None, 7)]
    assert [body.get("tool_choice") for body in asked] == ["required", None]


async def test_a_sample_that_called_tools_has_given_no_answer_where_the_stream_of_another_breaks(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    calls = (("add", '{"q": "2+2"}'),)
    fake_engines.let("ann", Script((), calls=calls, samples=("", "Four."), finish_reason="tool_calls", ending="break"))
    panel = (*seats("box", names=("ann",), samples=3), *seats(names=("bob",)))
    run = await fake_engines.run(panel=panel, quorum=1)
    assert [answer.name for answer in run.answers] == ["ann~2", "bob"]
    assert [(failure.name, failure.reason) for failure in run.failures] == [
        ("ann~1", "engine_broke"),
        ("ann~3", "engine_broke"),
    ]
    assert box.asked == []


async def test_a_format_holds_for_the_answer_and_not_for_the_turns_before_it(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    schema = {"name": "sum", "schema": {"type": "object", "properties": {"sum": {"type": "integer"}}}}
    output_format = OutputFormat("response_format", {"type": "json_schema", "json_schema": schema})
    call = Script((), calls=(("add", '{"q": "2+2"}'),), finish_reason="tool_calls")

    def script(body: Json) -> Script:
        if "response_format" in body:
            return Script(('{"sum": 4}',))
        return Script(("It is four.",)) if results(body) else call

    fake_engines.let("ann", script)
    prompt = Prompt([{"role": "user", "content": "2+2?"}], output_format=output_format)
    run = await fake_engines.put(prompt, panel=seats("box", names=("ann",)), strategy="vote", quorum=1)
    assert run.content == '{"sum": 4}'
    assert ["response_format" in body for body in all_bodies(fake_engines, "ann")] == [False, False, True]


async def test_a_turn_that_fails_fails_its_answer_alone(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    broken = Script(("so",), ending="break")
    call = Script((), calls=(("add", '{"q": "2+2"}'),), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: broken if results(body) else call)
    run = await fake_engines.run(panel=seats("box"))
    assert [(failure.name, failure.reason, failure.partial) for failure in run.failures] == [
        ("ann", "engine_broke", "so")
    ]
    assert len(run.answers) == 2


async def test_each_sample_that_called_nothing_and_misses_the_format_is_asked_for_one_answer(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    schema = {"name": "sum", "schema": {"type": "object", "properties": {"sum": {"type": "integer"}}}}
    output_format = OutputFormat("response_format", {"type": "json_schema", "json_schema": schema})
    turns = {False: Script(samples=("Four.", "It is 4.")), True: Script(samples=('{"sum": 4}', '{"sum": 5}'))}
    fake_engines.let("ann", lambda body: turns["response_format" in body])
    prompt = Prompt([{"role": "user", "content": "2+2?"}], output_format=output_format)
    panel = seats("box", names=("ann",), samples=2)
    run = await fake_engines.put(prompt, panel=panel, strategy="vote", quorum=2)
    assert [answer.content for answer in run.answers] == ['{"sum": 4}', '{"sum": 4}']
    assert [body.get("n", 1) for body in all_bodies(fake_engines, "ann")] == [2, 1, 1]
