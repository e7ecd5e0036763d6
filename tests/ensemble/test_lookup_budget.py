"""Members that look things up in a run with a limit on tokens: they stop in time, and answer with what they have."""

from dataclasses import replace
from typing import Any

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.tools.base import Passage, ToolResult
from cappella.types import Sampling
from support.fake_engines import FakeEngines
from support.scripted_engine import Json, Script
from support.small_tools import SmallTools, adding

BOB = Seat("bob", "bob", Sampling(temperature=0.7, max_completion_tokens=100))
ANN = replace(BOB, name="ann", model="ann", tools=SeatTools(("box",), max_calls=16))


def results(body: Json) -> list[str]:
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def insatiable(fake_engines: FakeEngines, answer: str = "Three.") -> list[Json]:
    """Ann calls a tool in each turn in which she may; returns the requests that she gets."""
    asked: list[Json] = []

    def script(body: Json) -> Script:
        asked.append(body)
        call = Script((), calls=(("add", f'{{"q": "1+{len(asked)}"}}'),), finish_reason="tool_calls")
        return Script((answer,)) if body.get("tool_choice") == "none" else call

    fake_engines.let("ann", script)
    return asked


def by_text(body: Json) -> int:
    """A token has two characters."""
    return sum(len(str(message.get("content"))) + 40 for message in body["messages"]) // 2


async def run(fake_engines: FakeEngines, total: int, **changes: Any) -> Any:
    options: dict[str, Any] = {"panel": (ANN, BOB), "max_total_tokens": total, "analysis": "off", **changes}
    return await fake_engines.run(**options)


async def test_a_member_stops_looking_up_while_there_are_tokens_for_its_answer_and_the_judge(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    asked = insatiable(fake_engines)
    fake_engines.servers["ann"].tokens = 300
    done = await run(fake_engines, 6000)
    assert [(answer.name, answer.content) for answer in done.answers] == [("ann", "Three."), ("bob", "Hello there")]
    assert (done.status, done.content) == ("ok", "The final answer")
    assert 1 < len(box.asked) < 16
    assert results(asked[-1])
    assert "answer now" in results(asked[-1])[-1]
    assert sum(call.usage.prompt_tokens for call in done.calls if call.seat == "ann") <= 3000
    assert sum(call.usage.prompt_tokens + call.usage.completion_tokens for call in done.calls) <= 6000


async def test_results_are_shortened_to_what_the_tokens_of_the_run_allow(fake_engines: FakeEngines) -> None:
    digits = "".join(str(number) for number in range(5000))
    fake_engines.tool_servers["box"] = box = SmallTools(functions={"add": lambda _: ToolResult(digits)})
    asked = insatiable(fake_engines)
    fake_engines.servers["ann"].tokens_of = by_text
    done = await run(fake_engines, 6000)
    assert done.answers[0].content == "Three."
    assert box.asked
    assert 100 < len(results(asked[-1])[0]) < len(digits)


async def test_calls_whose_results_it_could_not_read_are_not_made(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    asked = insatiable(fake_engines, "I do not know.")
    fake_engines.servers["ann"].tokens = 300
    done = await run(fake_engines, 800)
    assert box.asked == []
    assert [body.get("tool_choice") for body in asked] == [None, "none"]
    assert done.answers[0].content == "I do not know."


async def test_a_member_that_has_no_tokens_left_for_an_answer_fails_and_says_why(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    insatiable(fake_engines)
    fake_engines.servers["ann"].tokens = 300
    done = await run(fake_engines, 600, quorum=1)
    (failure,) = done.failures
    assert (failure.name, failure.reason) == ("ann", "budget")
    assert "answer of ann" in failure.error
    assert "max_total_tokens" in failure.error


async def test_a_turn_that_the_tokens_turn_out_not_to_allow_becomes_the_answer(fake_engines: FakeEngines) -> None:
    """Others may spend between a count and the turn that it was for."""
    fake_engines.tool_servers["box"] = adding()
    asked, counted = insatiable(fake_engines), list[Json]()

    def tokens_of(body: Json) -> int:
        counted.append(body)
        # Of the second turn itself, after two counts for its calls.
        return 5000 if len(counted) == 4 else 100

    fake_engines.servers["ann"].tokens_of = tokens_of
    done = await run(fake_engines, 4000)
    assert [body.get("tool_choice") for body in asked] == [None, "none"]
    assert results(asked[-1])
    assert done.answers[0].content == "Three."


async def test_each_round_leaves_tokens_to_the_next(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = adding()
    asked = insatiable(fake_engines)
    fake_engines.servers["ann"].tokens = 100
    done = await run(fake_engines, 8000, layers=2)
    assert [len(panel.answers) for panel in done.rounds] == [2, 2]
    assert [body.get("tool_choice") for body in asked].count("none") == 2
    first = [call for call in done.rounds[0].calls if call.seat == "ann"]
    assert len(first) > 2
    assert sum(call.usage.prompt_tokens for call in first) <= 2000
    assert done.status == "ok"


async def test_a_sample_whose_calls_are_refused_is_asked_for_one_answer(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    called = Script((), calls=(("add", '{"q": "1+1"}'),), samples=("", "Four."), finish_reason="tool_calls")
    turns = {None: called, "none": Script(samples=("I do not know.", "Nor do I."))}
    fake_engines.let("ann", lambda body: turns[body.get("tool_choice")])
    fake_engines.servers["ann"].tokens = 300
    done = await run(fake_engines, 900, panel=(replace(ANN, samples=2), BOB))
    assert box.asked == []
    assert {answer.name: answer.content for answer in done.answers if answer.name != "bob"} == {
        "ann~1": "I do not know.",
        "ann~2": "Four.",
    }


def writes_calls(fake_engines: FakeEngines) -> list[Json]:
    written = Script(('{"name": "add", "arguments": {"q": "1+1"}}',))
    fake_engines.let("ann", lambda body: written if "tools" in body else Script(("I do not know.",)))
    return fake_engines.servers["ann"].bodies


async def test_a_written_call_that_is_refused_is_asked_plainly_and_reads_of_no_results(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    asked = writes_calls(fake_engines)
    fake_engines.servers["ann"].tokens = 300
    done = await run(fake_engines, 800)
    assert ["tools" in body for body in asked] == [True, False]
    assert "marks that carry the key" not in str(asked[-1])
    assert done.answers[0].content == "I do not know."


async def test_results_that_turn_out_too_large_are_not_in_the_plain_form_either(fake_engines: FakeEngines) -> None:
    fake_engines.tool_servers["box"] = box = adding()
    asked = writes_calls(fake_engines)
    fake_engines.servers["ann"].tokens_of = lambda body: (
        5000 if any(message["role"] == "tool" for message in body["messages"]) else 100
    )
    done = await run(fake_engines, 4000)
    assert len(box.asked) == 1
    assert "[result A" not in str(asked[-1])
    assert done.answers[0].content == "I do not know."


async def test_who_could_not_read_a_passage_is_not_told_to_have_found_it(fake_engines: FakeEngines) -> None:
    found = Passage("box", "a.md", "line 1", "Words. " * 50)
    fake_engines.tool_servers["box"] = SmallTools(functions={"add": lambda _: ToolResult(passages=[found])})
    asked = insatiable(fake_engines)
    fake_engines.servers["ann"].tokens_of = lambda body: 9000 if results(body) else 100
    done = await run(fake_engines, 4000)
    assert [results(body) for body in asked] == [[], []]
    assert [source.found_by for source in done.sources.found] == [[]]
