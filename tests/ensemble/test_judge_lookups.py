"""A judge that sees what members found, and looks things up itself before it compares and writes."""

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.events import FinalDelta
from cappella.tools.base import ToolResult
from cappella.types import Prompt, Sampling
from support.fake_engines import ANALYSIS, FakeEngines, eventually
from support.scripted_engine import Json, Script
from support.small_tools import LEAVE, NOTICE, SmallTools, adding, searching

SEARCH = Script((), calls=(("search", '{"q": "leave"}'),), finish_reason="tool_calls")
ADD = Script((), calls=(("add", '{"q": "2+3"}'),), finish_reason="tool_calls")


def seat(name: str, *tools: str) -> Seat:
    return Seat(name, name, Sampling(temperature=0.7), tools=SeatTools(tools))


def has_results(body: Json) -> bool:
    return any(message["role"] == "tool" for message in body["messages"])


def judging(call: Script, final: Script = Script(("The", " answer"))) -> object:
    """A judge that makes one call before it compares and writes."""

    def script(body: Json) -> Script:
        if "look up with your tools" in str(body["messages"][-1]["content"]):
            return call
        if "Now compare the answers" in str(body["messages"][-1]["content"]):
            return Script((json.dumps(ANALYSIS),))
        return final if "Now write" in str(body["messages"][-1]["content"]) else Script(("ready",))

    return script


async def test_the_judge_sees_each_passage_once_with_the_letters_of_those_who_found_it(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers |= {"a": searching(LEAVE, NOTICE, name="a"), "b": searching(LEAVE, name="b")}
    for name in ("ann", "bob"):
        fake_engines.let(name, lambda body: Script(("30 days [S1].",)) if has_results(body) else SEARCH)
    run = await fake_engines.run(panel=(seat("ann", "a"), seat("bob", "b"), seat("cat")))
    letters = {name: letter for letter, name in run.labels.items()}
    for text in (fake_engines.judge_prompt(-2), fake_engines.judge_prompt(-1)):
        both = " and ".join(sorted((letters["ann"], letters["bob"])))
        assert text.count("Everyone has 30 days of leave.") == 1
        assert f"handbook/leave.md, lines 10-14, found by {both}: " in text
        assert f"handbook/notice.md, page 2, found by {letters['ann']}: " in text
        assert text.index("[end C ") < text.index("Everyone has")


async def test_without_passages_the_judge_reads_what_it_always_read(fake_engines: FakeEngines) -> None:
    await fake_engines.run()
    assert "passages" not in fake_engines.judge_prompt()


async def test_the_judge_looks_up_then_compares_and_writes_over_what_it_found(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    fake_engines.servers["judge"].script = judging(ADD)  # type: ignore[assignment]
    run = await fake_engines.run(judge_tools=SeatTools(("box",)), early_prefill=False)
    assert box.asked == [("add", {"q": "2+3"})]
    first, second, analysis, final = fake_engines.servers["judge"].bodies
    assert [body.get("tool_choice") for body in (first, second, analysis, final)] == [None, None, "none", "none"]
    assert len({json.dumps(body["tools"]) for body in (first, second, analysis, final)}) == 1
    for body in (analysis, final):
        # The prefix stays in the cache.
        assert body["messages"][: len(second["messages"])] == second["messages"]
        assert [message["role"] for message in body["messages"]] == ["user", "assistant", "tool", "assistant", "user"]
    assert run.content == "The answer"
    assert run.analysis is not None
    assert [(use.seat, use.tool) for use in run.tool_uses] == [("judge", "add")]
    assert [call.role for call in run.calls if call.seat == "judge"] == ["lookup", "lookup", "analysis", "final"]
    assert run.status == "ok"


async def test_a_judge_that_needs_nothing_leaves_no_trace_of_its_tools_in_its_prompts(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.servers["judge"].script = judging(Script(("ready",)))  # type: ignore[assignment]
    run = await fake_engines.run(judge_tools=SeatTools(("box",)))
    assert "look up" not in fake_engines.judge_prompt()
    assert run.content == "The answer"


async def test_a_judge_that_fails_as_it_looks_up_still_writes(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.servers["judge"].script = judging(Script(refuse=(400, {"error": {"message": "no tools"}})))  # type: ignore[assignment]
    run = await fake_engines.run(judge_tools=SeatTools(("box",)))
    assert (run.content, run.status) == ("The answer", "ok")


async def test_a_judge_with_a_tool_that_hangs_writes_in_time_with_what_the_others_gave(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers |= {"box": adding(), "handbook": (slow := searching(LEAVE))}
    slow.holds = True
    both = Script((), calls=(*ADD.calls, *SEARCH.calls), finish_reason="tool_calls")
    fake_engines.servers["judge"].script = judging(both)  # type: ignore[assignment]
    tools = SeatTools(("box", "handbook"))
    run = await fake_engines.run(judge_tools=tools, deadline_s=8.0, early_prefill=False)
    assert (run.content, run.status) == ("The answer", "ok")
    assert slow.given_up == 1
    sums, found = (each["content"] for each in fake_engines.servers["judge"].bodies[-1]["messages"][2:4])
    assert "\n5\n" in sums
    assert "It took too long" in found


@pytest.mark.parametrize("at_once", [1, 8])
async def test_what_a_judge_looks_up_leaves_room_for_whole_answers(fake_engines: FakeEngines, at_once: int) -> None:
    digits = "".join(str(number) for number in range(5000))
    fake_engines.tool_servers["box"] = box = SmallTools(functions={"add": lambda _: ToolResult(digits)})
    answer = "Word. " * 188
    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script((answer,)))
    judge = fake_engines.servers["judge"]
    calls = tuple(("add", json.dumps({"q": str(number)})) for number in range(at_once))
    looks_up = Script((), calls=calls, finish_reason="tool_calls")

    def script(body: Json) -> Script:
        final = "Now write" in str(body["messages"][-1]["content"])
        return Script(("The", " answer")) if final else looks_up

    def tokens(body: Json) -> int:
        text = json.dumps([body["messages"], body.get("tools")])
        return sum(map(str.isdigit, text)) + len(text) // 4

    judge.script, judge.tokens_of = script, tokens
    judge.engine.capabilities = replace(judge.engine.capabilities, context_tokens=4096)
    run = await fake_engines.run(judge_tools=SeatTools(("box",)), analysis="off", early_prefill=False)
    assert run.content == "The answer"
    assert box.asked
    assert has_results(judge.bodies[-1])
    assert not run.shortened
    assert str(judge.bodies[-1]["messages"][0]["content"]).count(answer.strip()) == 3
    assert tokens(judge.bodies[-1]) <= 4096 * 3 // 4


async def test_what_a_judge_looks_up_leaves_the_tokens_of_the_run_that_its_answer_needs(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    judge = fake_engines.servers["judge"]
    judge.tokens, numbers = 200, iter(range(100))

    def script(body: Json) -> Script:
        # Calls of its own each time: one that repeats itself is stopped for that.
        call = Script((), calls=(("add", f'{{"q": "1+{next(numbers)}"}}'),), finish_reason="tool_calls")
        return Script(("The", " answer")) if "Now write" in str(body["messages"][-1]["content"]) else call

    judge.script = script
    run = await fake_engines.run(judge_tools=SeatTools(("box",), max_calls=16), max_total_tokens=3000, analysis="off")
    assert (run.content, run.status) == ("The answer", "ok")
    assert 1 <= len(box.asked) < 16
    assert judge.bodies[-1]["max_completion_tokens"] >= 3000 // 4


async def test_the_judges_answer_keeps_the_tools_of_the_caller(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    fake_engines.servers["judge"].script = judging(ADD)  # type: ignore[assignment]
    weather = {"type": "function", "function": {"name": "weather", "parameters": {}}}
    prompt = Prompt([{"role": "user", "content": "Hi"}], tools=[weather])
    await fake_engines.put(prompt, judge_tools=SeatTools(("box",)), analysis="off", early_prefill=False)
    offered = [[tool["function"]["name"] for tool in body["tools"]] for body in fake_engines.servers["judge"].bodies]
    assert offered == [["add"], ["add"], ["weather"]]
    assert fake_engines.servers["judge"].bodies[-1].get("tool_choice") is None


async def test_calls_of_its_own_tools_are_no_part_of_the_judges_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    final = Script(("The", " answer"), calls=ADD.calls, finish_reason="tool_calls")
    fake_engines.let("judge", lambda body: final if body.get("tool_choice") == "none" else Script(("ready",)))
    run = await fake_engines.run(judge_tools=SeatTools(("box",)), analysis="off", early_prefill=False)
    assert (run.content, run.answer.tool_calls, run.answer.finish_reason) == ("The answer", [], "stop")
    streamed = [event.chunk for event in fake_engines.events if isinstance(event, FinalDelta)]
    assert [chunk for chunk in streamed if chunk.tool_calls] == []
    assert run.status == "ok"


async def test_what_is_read_early_is_a_prefix_of_what_a_judge_with_tools_reads(fake_engines: FakeEngines) -> None:
    handbook = searching(LEAVE)
    handbook.holds = True
    fake_engines.tool_servers |= {"box": adding(), "handbook": handbook}
    fake_engines.servers["judge"].script = judging(ADD)  # type: ignore[assignment]
    long = tuple(f"word{number} " + "and some more " * 7 for number in range(30))
    thinking_aloud = Script(("Let me see. " * 200,), calls=SEARCH.calls, finish_reason="tool_calls")
    fake_engines.let("ann", Script(long, ending="held"))
    fake_engines.let("bob", Script(long, ending="held"))
    fake_engines.let("cat", lambda body: Script(long, pause_s=0.01) if has_results(body) else thinking_aloud)
    panel = (seat("ann"), seat("bob"), seat("cat", "handbook"))
    options: dict[str, Any] = {
        "judge_tools": SeatTools(("box",)),
        "answer_order": "arrival",
        "analysis": "off",
        "grace_s": "never",
    }
    running = asyncio.create_task(fake_engines.run(panel=panel, **options))
    assert await eventually(lambda: bool(handbook.asked))
    fake_engines.release()
    assert await eventually(lambda: len(fake_engines.ended) == 2)
    handbook.released.set()
    run = await running
    bodies = fake_engines.servers["judge"].bodies
    early = [body for body in bodies if body.get("max_completion_tokens") == 1]
    assert early
    # What cat had said before it called a tool is no part of its answer.
    assert all(bodies[-1]["messages"][0]["content"].startswith(body["messages"][0]["content"]) for body in early)
    assert {json.dumps(body["tools"]) for body in early} == {json.dumps(bodies[-1]["tools"])}
    assert run.status == "ok"


async def test_calls_of_its_own_tools_never_reach_the_client(fake_engines: FakeEngines) -> None:
    """Not every engine keeps to `tool_choice: none`."""
    fake_engines.tool_servers["box"] = adding()
    disobeys = Script(("Five.",), calls=ADD.calls, finish_reason="tool_calls")
    fake_engines.servers["judge"].script = judging(ADD, final=disobeys)  # type: ignore[assignment]
    run = await fake_engines.run(judge_tools=SeatTools(("box",)))
    assert (run.content, run.answer.tool_calls, run.answer.finish_reason) == ("Five.", [], "stop")
