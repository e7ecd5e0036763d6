"""Members that look things up before they answer, over scripted engines and a small server of tools."""

import asyncio
from collections.abc import Callable
from typing import Any

from cappella.config.options import Seat
from cappella.ensemble.events import ToolCalled, ToolReturned
from cappella.tools.base import ToolResult
from cappella.types import Prompt, Sampling
from support.fake_engines import MEMBERS, FakeEngines, eventually
from support.scripted_engine import Json, Script
from support.small_tools import LEAVE, NOTICE, SmallTools, adding, searching


def seats(*tools: str, names: tuple[str, ...] = MEMBERS, **fields: Any) -> tuple[Seat, ...]:
    """Seats that all have these tools."""
    return tuple(Seat(name, name, Sampling(temperature=0.7), tools=tools, **fields) for name in names)


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
    called = Script((), calls=(("add", '{"q": "1+1"}'),), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: Script(("Two.",)) if body.get("tool_choice") == "none" else called)
    run = await fake_engines.run(panel=seats("box", max_tool_calls=3))
    assert len(box.asked) == 1  # alike calls are made once
    assert len([use for use in run.tool_uses if use.seat == "ann"]) == 3
    assert [body.get("tool_choice") for body in all_bodies(fake_engines, "ann")] == [None, None, None, "none"]
    assert run.answers[0].content == "Two."


async def test_a_model_that_still_calls_tools_then_gave_no_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.let("ann", Script((), calls=(("add", '{"q": "1+1"}'),), finish_reason="tool_calls"))
    run = await fake_engines.run(panel=seats("box", max_tool_calls=1))
    assert [(failure.name, failure.reason) for failure in run.failures] == [("ann", "empty_answer")]
    assert len(all_bodies(fake_engines, "ann")) == 2


async def test_passages_have_handles_documents_and_places(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["handbook"] = searching(LEAVE, NOTICE)
    fake_engines.let("ann", calling(("search", '{"q": "leave"}')))
    await fake_engines.run(panel=seats("handbook"))
    (text,) = results(all_bodies(fake_engines, "ann")[-1])
    assert "[S1] handbook/leave.md, lines 10-14: Everyone has 30 days of leave." in text
    assert "[S2] handbook/notice.md, page 2: " in text
    assert "as [S1]" in text
