"""/v1/responses as the stock client reads it."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import TypeAdapter

from cappella.engines.vllm.protocol import SPACING
from cappella.ensemble import stream
from cappella.gateway.formats.items import InputItem, conversation
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, judge_script
from support.scripted_engine import Script

TOOL: Any = {"type": "function", "name": "look_up", "parameters": {"type": "object"}, "strict": False}
CALL = Script((), reasoning="I look.", calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")


def client(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def ask(url: str, **more: Any) -> Any:
    async with client(url) as stock:
        return await stock.responses.create(**{"model": "cappella/default", "input": "Say hello.", **more})


async def events_of(url: str, **more: Any) -> list[Any]:
    async with client(url) as stock:
        wanted = {"model": "cappella/default", "input": "Say hello.", "stream": True, **more}
        return [event async for event in await stock.responses.create(**wanted)]


async def test_a_response_has_only_items_that_every_client_knows(gateway: str) -> None:
    reply = await ask(gateway)
    assert [item.type for item in reply.output] == ["message"]
    assert reply.to_dict()["fusion"]["status"] == "ok"
    kinds = [event.type for event in await events_of(gateway)]
    assert kinds[2] == "response.output_item.added"
    assert [kind for kind in kinds if "fusion" in kind] == []


async def test_a_response_has_the_answer_and_an_item_with_the_trace_on_request(gateway: str) -> None:
    wanted = {"fusion": {"include_intermediate_responses": True, "include_events": True}}
    reply = await ask(gateway, instructions="Be brief.", extra_body=wanted)
    assert (reply.output_text, reply.status, reply.instructions) == ("The final answer", "completed", "Be brief.")
    fusion, message = reply.output
    assert (fusion.type, fusion.status) == ("openrouter:fusion", "completed")
    assert fusion.analysis["consensus"] == ANALYSIS["consensus"]
    assert [each["model"] for each in fusion.responses] == list(MEMBERS)
    assert message.content[0].type == "output_text"
    assert (reply.usage.input_tokens, reply.usage.input_tokens_details.cached_tokens) == (10, 4)


async def test_events_are_numbered_typed_and_add_up_to_the_response(gateway: str) -> None:
    events = await events_of(gateway, extra_body={"fusion": {"include_events": True}})
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.in_progress", "response.output_item.added"]
    assert kinds[-1] == "response.completed"
    fusion = [kind for kind in kinds if kind.startswith("response.fusion_call.")]
    assert fusion[0] == "response.fusion_call.in_progress"
    assert fusion.count("response.fusion_call.panel.added") == fusion.count("response.fusion_call.panel.completed") == 3
    assert "response.fusion_call.analysis.completed" in fusion
    compared = [event.delta for event in events if event.type == "response.fusion_call.analysis.delta"]
    assert json.loads("".join(compared)) == ANALYSIS
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == "The final answer"
    final = events[-1].response
    assert final.output_text == "The final answer"
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert {item.id for item in done} == {item.id for item in final.output}


async def test_the_clients_own_stream_helper_follows_a_run(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", judge_script(Script(("one", " two"), reasoning="Hm.")))
    async with (
        client(gateway) as stock,
        stock.responses.stream(model="cappella/default", input="Hi") as stream,
    ):
        final = await stream.get_final_response()
    assert final.output_text == "one two"
    assert [item.type for item in final.output] == ["reasoning", "message"]
    assert final.to_dict()["fusion"]["status"] == "ok"  # type: ignore[index]


async def test_a_function_call_and_its_output_go_round(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", CALL)
    reply = await ask(
        gateway, model="cappella/tools", tools=[TOOL], tool_choice={"type": "function", "name": "look_up"}
    )
    call = reply.output[-1]
    assert (call.type, call.name, json.loads(call.arguments)) == ("function_call", "look_up", {"name": "Ann"})
    assert fake_engines.servers["judge"].bodies[-1]["tool_choice"] == {
        "type": "function",
        "function": {"name": "look_up"},
    }
    fake_engines.let("judge", judge_script())
    wire = [item.model_dump(exclude_none=True, warnings=False) for item in reply.output]
    turns = [{"role": "user", "content": "Who is Ann?"}, *wire]
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "A singer."}
    again = await ask(gateway, model="cappella/tools", tools=[TOOL], input=[*turns, output])
    assert again.output_text == "The final answer"
    said = fake_engines.servers["ann"].bodies[-1]["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant", "tool"]
    assert (said[1]["reasoning"], said[1]["tool_calls"][0]["id"]) == ("I look.", call.call_id)


async def test_function_calls_are_streamed_in_pieces(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", CALL)
    events = await events_of(gateway, model="cappella/tools", tools=[TOOL])
    pieces = [event.delta for event in events if event.type == "response.function_call_arguments.delta"]
    assert "".join(pieces) == '{"name": "Ann"}'
    (done,) = [event for event in events if event.type == "response.function_call_arguments.done"]
    assert (done.arguments, done.output_index) == ('{"name": "Ann"}', 1)


async def test_a_schema_is_asked_for_in_the_flat_spelling(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", Script(("{}",)))
    schema = {"type": "object"}
    text: Any = {"format": {"type": "json_schema", "name": "x", "schema": schema}}
    await ask(gateway, text=text, extra_body={"fusion": {"analysis": "off"}})
    asked = {"name": "x", "schema": {**schema, **SPACING}}
    assert fake_engines.servers["judge"].bodies[-1]["response_format"]["json_schema"] == asked


async def test_an_answer_cut_by_its_limit_is_incomplete(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", judge_script(Script(("half",), finish_reason="length")))
    reply = await ask(gateway, max_output_tokens=3)
    assert (reply.status, reply.incomplete_details.reason) == ("incomplete", "max_output_tokens")


async def test_a_failure_in_mid_stream_is_an_event_and_earlier_ones_a_status(
    fake_engines: FakeEngines, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("I",), pause_s=0.05, ending="break"))
    with monkeypatch.context() as patch:
        patch.setattr(stream, "EARLY_FAILURE_S", 0.0)
        events = await events_of(gateway)
    assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "insufficient_quorum")
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="break"))
    with pytest.raises(openai.InternalServerError, match="0 of 3"):
        await ask(gateway, stream=True)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": []}, "input"),
        ({"input": [{"type": "web_search_call", "id": "x"}]}, "input"),
        ({"tools": [{"type": "function"}]}, "tools.0.name"),
        ({"top_logprobs": 2}, "include"),
    ],
)
async def test_a_field_that_is_not_honoured_is_a_400_that_names_it(
    gateway: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        await ask(gateway, **more)


def test_items_become_the_turns_that_they_belong_to() -> None:
    items: Any = [
        {"role": "developer", "content": "Rules."},
        {"role": "user", "content": [{"type": "input_text", "text": "a"}]},
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "b"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call", "call_id": "2", "name": "g", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "x"},
    ]
    turns = conversation("Top.", TypeAdapter(list[InputItem]).validate_python(items))
    assert [turn["role"] for turn in turns] == ["system", "system", "user", "assistant", "tool"]
    assert (turns[3]["content"], turns[3]["reasoning"]) == ("b", "hm")
    assert [call["id"] for call in turns[3]["tool_calls"]] == ["1", "2"]
