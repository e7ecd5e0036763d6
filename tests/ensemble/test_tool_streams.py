"""What a stream tells of members that look things up: the text of each answer once, and every call."""

import asyncio

import pytest

from cappella.config.options import Seat
from cappella.config.seat_tools import SeatTools
from cappella.ensemble.events import AnswerDelta, ToolCalled, ToolReturned
from cappella.types import OutputFormat, Prompt, Sampling
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Json, Script
from support.small_tools import adding

ANN = Seat("ann", "ann", Sampling(temperature=0.7), tools=SeatTools(("box",)))
BOB = Seat("bob", "bob", Sampling(temperature=0.7))


def results(body: Json) -> list[str]:
    return [message["content"] for message in body["messages"] if message["role"] == "tool"]


def spoken(fake_engines: FakeEngines, name: str) -> str:
    """The text of an answer as the stream tells it: what is said before a call is no part of it."""
    text = ""
    for event in fake_engines.events:
        if isinstance(event, AnswerDelta | ToolCalled) and event.name == name:
            text = text + event.text if isinstance(event, AnswerDelta) else ""
    return text


@pytest.mark.parametrize("first", ["It is four.", '{"sum": 4}'])
@pytest.mark.parametrize("calls", [True, False])
async def test_the_stream_of_an_answer_in_a_format_has_its_text_once(
    fake_engines: FakeEngines, first: str, calls: bool
) -> None:
    fake_engines.tool_servers["box"] = adding()
    call = Script(("Let me see.",), calls=(("add", '{"q": "2+2"}'),), finish_reason="tool_calls")

    def script(body: Json) -> Script:
        if "response_format" in body:
            return Script(('{"sum"', ": 4}"))
        return call if calls and not results(body) else Script((first[:4], first[4:]))

    fake_engines.let("ann", script)
    schema = {"name": "sum", "schema": {"type": "object", "required": ["sum"]}}
    output_format = OutputFormat("response_format", {"type": "json_schema", "json_schema": schema})
    prompt = Prompt([{"role": "user", "content": "2+2?"}], output_format=output_format)
    run = await fake_engines.put(prompt, panel=(ANN,), strategy="vote", quorum=1)
    assert run.content == spoken(fake_engines, "ann") == '{"sum": 4}'


async def test_the_stream_tells_calls_that_cannot_be_made_so_that_what_was_said_before_is_no_part_of_the_answer(
    fake_engines: FakeEngines,
) -> None:
    fake_engines.tool_servers["box"] = adding()
    call = Script(("Let me see.",), calls=(("divide", "{}"),), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: Script(("Two.",)) if results(body) else call)
    await fake_engines.run(panel=(ANN, BOB))
    assert spoken(fake_engines, "ann") == "Two."
    told = [event for event in fake_engines.events if isinstance(event, ToolCalled | ToolReturned)]
    assert [type(event) for event in told] == [ToolCalled, ToolReturned]


def answers_after_a_call(fake_engines: FakeEngines, answer: Script, plainly: str = "") -> Seat:
    """Ann makes a call, and says this in the turn of its answer, and that where it is asked without tools."""
    fake_engines.tool_servers["box"] = adding()
    call = Script((), calls=(("add", '{"q": "2+2"}'),), finish_reason="tool_calls")
    turns = {"required": call, "none": answer, None: Script((plainly,))}
    fake_engines.let("ann", lambda body: turns[body.get("tool_choice")])
    return Seat("ann", "ann", Sampling(), tools=SeatTools(("box",), choice="required", max_calls=1))


def deltas(fake_engines: FakeEngines) -> list[str]:
    return [each.text for each in fake_engines.events if isinstance(each, AnswerDelta) and each.name == "ann"]


@pytest.mark.parametrize("fence", ["", "\n```json\n", "<tool_call>"])
async def test_the_stream_has_nothing_of_an_answer_that_turned_out_to_be_a_call(
    fake_engines: FakeEngines, fence: str
) -> None:
    written = (*fence, '{"na', 'me": "add", ', '"arguments": {"q": ', '"2+2"}}')
    ann = answers_after_a_call(fake_engines, Script(written), "It is 4.")
    run = await fake_engines.run(panel=(ann, BOB))
    assert run.answers[0].content == "It is 4."
    assert "".join(deltas(fake_engines)) == "It is 4."


@pytest.mark.parametrize(
    "answer", ["It is 4.", '{"sum": 4}', "```python\n4\n```", '{"name": "ann", "arguments": {}}', "[1]", "<b>4</b>"]
)
async def test_an_answer_streams_as_soon_as_it_can_be_no_call(fake_engines: FakeEngines, answer: str) -> None:
    ann = answers_after_a_call(fake_engines, Script(tuple(answer), ending="held"))
    running = asyncio.create_task(fake_engines.run(panel=(ann, BOB), grace_s="never"))
    assert await eventually(lambda: "".join(deltas(fake_engines)) == answer)
    fake_engines.release()
    run = await running
    assert run.answers[0].content == "".join(deltas(fake_engines)) == answer


async def test_an_answer_that_only_looked_like_a_call_is_told_once_it_has_ended(fake_engines: FakeEngines) -> None:
    answer = '{"name": "add"}'
    await fake_engines.run(panel=(answers_after_a_call(fake_engines, Script(tuple(answer))), BOB))
    assert "".join(deltas(fake_engines)) == answer
