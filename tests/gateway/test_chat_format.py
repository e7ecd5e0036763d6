"""Tools, forms, reasoning, log-probabilities and the trace on /v1/chat/completions, as the stock client reads them."""

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from cappella.engines.vllm.protocol import SPACING
from support.fake_engines import MEMBERS, FakeEngines, choice_script, judge_script
from support.scripted_engine import Script

USER: Any = [{"role": "user", "content": "Who is Ann?"}]
TOOLS: Any = [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}]
CALL = Script((), reasoning="I look.", calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")


def client(url: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0)


async def ask(url: str, **more: Any) -> Any:
    async with client(url) as stock:
        return await stock.chat.completions.create(**{"model": "cappella/default", "messages": USER, **more})


async def test_a_tool_loop_goes_round_with_the_stock_client(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", CALL)
    reply = await ask(gateway, model="cappella/tools", tools=TOOLS)
    message = reply.choices[0].message
    assert reply.choices[0].finish_reason == "tool_calls"
    assert (message.content, message.reasoning, message.reasoning_content) == (None, "I look.", "I look.")
    assert [(call.function.name, call.function.arguments) for call in message.tool_calls] == [
        ("look_up", '{"name": "Ann"}')
    ]
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "A singer."}
    fake_engines.let("judge", judge_script())
    reply = await ask(gateway, model="cappella/tools", tools=TOOLS, messages=[*USER, message, result])
    assert reply.choices[0].message.content == "The final answer"
    said = fake_engines.servers["ann"].bodies[-1]["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant", "tool"]
    assert (said[1]["tool_calls"][0]["function"]["name"], said[1]["reasoning"]) == ("look_up", "I look.")
    assert fake_engines.servers["judge"].bodies[-1]["messages"][:3] == said


PATCH: Any = {"type": "custom", "custom": {"name": "apply_patch", "description": "Patches a file."}}
MIXED = (("apply_patch", '{"input": "*** Begin"}'), ("look_up", '{"name": "Ann"}'), ("apply_patch", '{"input": "é"}'))


async def test_calls_of_a_tool_that_takes_a_text_come_back_as_such(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", Script((), calls=MIXED, finish_reason="tool_calls"))
    wanted: Any = {"model": "cappella/tools", "tools": [PATCH, *TOOLS]}
    calls = (await ask(gateway, **wanted)).choices[0].message.model_dump(exclude_none=True)["tool_calls"]
    assert [call["type"] for call in calls] == ["custom", "function", "custom"]
    assert calls[0]["custom"] == {"name": "apply_patch", "input": "*** Begin"}
    assert calls[1]["function"] == {"name": "look_up", "arguments": '{"name": "Ann"}'}
    streamed: dict[int, dict[str, Any]] = {}
    async with client(gateway) as stock:
        async for chunk in await stock.chat.completions.create(messages=USER, stream=True, **wanted):
            for piece in chunk.choices[0].delta.tool_calls or ():
                given = piece.model_dump(exclude_none=True)
                call = streamed.setdefault(given["index"], {name: given.get(name) for name in ("id", "type")})
                for name, value in given.get(call["type"], {}).items():
                    call.setdefault(call["type"], {}).setdefault(name, "")
                    call[call["type"]][name] += value
    assert list(streamed.values()) == calls
    result = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "done"}
    said = {"role": "assistant", "content": None, "tool_calls": calls[:1]}
    assert (await ask(gateway, **wanted, messages=[*USER, said, result])).choices[0].finish_reason == "tool_calls"


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "length"])
async def test_a_call_that_was_cut_is_never_said_to_be_done(
    fake_engines: FakeEngines, gateway: str, finish: str
) -> None:
    fake_engines.let("judge", Script((), calls=(("look_up", '{"name": "An'),), finish_reason=finish))
    reply = await ask(gateway, model="cappella/tools", tools=TOOLS)
    assert reply.choices[0].finish_reason == "length"
    async with client(gateway) as stock:
        got = await stock.chat.completions.create(model="cappella/tools", messages=USER, tools=TOOLS, stream=True)
        assert [c.choices[0].finish_reason async for c in got if c.choices and c.choices[0].finish_reason] == ["length"]


async def test_reasoning_is_streamed_under_both_of_its_names(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", judge_script(Script(("one",), reasoning="Hm.")))
    async with client(gateway) as stock:
        got = await stock.chat.completions.create(model="cappella/default", messages=USER, stream=True)
        deltas = [chunk.choices[0].delta.model_dump() async for chunk in got if chunk.choices]
    assert [(d["reasoning"], d["reasoning_content"]) for d in deltas if d.get("reasoning")] == [("Hm.", "Hm.")]


async def test_tool_calls_are_streamed_in_openais_pieces(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", CALL)
    async with client(gateway) as stock:
        streaming = stock.chat.completions.stream(model="cappella/tools", messages=USER, tools=TOOLS)
        async with streaming as stream:
            final = await stream.get_final_completion()
    (call,) = list(final.choices[0].message.tool_calls or [])
    assert (call.function.name, call.function.arguments) == ("look_up", '{"name": "Ann"}')
    assert final.choices[0].finish_reason == "tool_calls"


async def test_tools_are_refused_by_an_ensemble_without_tools(gateway: str) -> None:
    with pytest.raises(openai.BadRequestError, match="does not accept tools"):
        await ask(gateway, tools=TOOLS)


async def test_an_output_format_reaches_the_engine_as_sent(fake_engines: FakeEngines, gateway: str) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": [None, 1]}}, "default": None}
    form: Any = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema, "strict": True}}
    fake_engines.let("judge", Script(('{"a": 1}',)))
    reply = await ask(gateway, response_format=form, extra_body={"fusion": {"analysis": "off"}})
    assert json.loads(reply.choices[0].message.content) == {"a": 1}
    asked = fake_engines.servers["judge"].bodies[-1]["response_format"]["json_schema"]
    assert asked == {"name": "x", "schema": {**schema, **SPACING}, "strict": True}
    structured = {"structured_outputs": {"choice": ["yes", "no"]}, "fusion": {"analysis": "off"}}
    await ask(gateway, extra_body=structured)
    assert fake_engines.servers["judge"].bodies[-1]["structured_outputs"] == {"choice": ["yes", "no"]}


async def test_logprobs_are_where_openai_has_them(fake_engines: FakeEngines, gateway: str) -> None:
    token = {"token": "x", "logprob": -0.5, "bytes": [120], "top_logprobs": []}
    fake_engines.let("judge", judge_script(Script(("x",), logprobs=(token,))))
    reply = await ask(gateway, logprobs=True, top_logprobs=1)
    assert reply.choices[0].logprobs.content[0].logprob == -0.5
    async with client(gateway) as stock:
        stream = await stock.chat.completions.create(
            model="cappella/default", messages=USER, logprobs=True, stream=True
        )
        chunks = [chunk async for chunk in stream]
    told = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert [token.token for each in told for token in each.content or ()] == ["x"]


async def test_the_trace_of_a_selection_names_the_winner_and_every_probability(
    fake_engines: FakeEngines, gateway: str
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script((f"word-{name}",)))
    fake_engines.let("judge", judge_script(choice=choice_script(bob=0.75, ann=0.25)))
    options = {"strategy": "select", "debias": True, "analysis_overrides": [{"model": "cat", "temperature": 0.4}]}
    reply = await ask(gateway, extra_body={"fusion": options})
    assert reply.choices[0].message.content == "word-bob"
    assert (reply.fusion["strategy"], reply.fusion["chosen"]) == ("select", "bob")
    assert reply.fusion["probabilities"]["bob"] == pytest.approx(0.75, abs=0.01)
    assert fake_engines.servers["cat"].bodies[-1]["temperature"] == 0.4
    assert [each["role"] for each in reply.usage.fusion_details][3:] == 3 * ["choice"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"tool_choice": "required"}, "needs tools"),
        ({"top_logprobs": 1}, "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"structured_outputs": {"choice": ["a"], "regex": "a"}}, "exactly one"),
        ({"structured_outputs": {"json_object": False}}, "exactly one"),
        ({"structured_outputs": {"choice": None}}, "exactly one"),
        ({"structured_outputs": {"json": "{not json"}}, "structured_outputs|schema"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"reasoning_effort": "low", "fusion": {"reasoning": {"effort": "low"}}}, "mean the same"),
        ({"fusion": {"layers": 9}}, "fusion.layers"),
        ({"fusion": {"preset": "none"}}, "no preset"),
        ({"fusion": {"gate": "rules"}}, "no gate"),
        ({"fusion": {"max_total_tokens": 1}}, "max_total_tokens"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x/y"}}]}]},
            "url",
        ),
        ({"messages": [{"role": "tool", "content": "x"}]}, "tool_call_id"),
    ],
)
async def test_a_field_that_cannot_be_honoured_is_a_400_that_names_it(
    gateway: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(openai.BadRequestError, match=says):
        await ask(gateway, messages=more.pop("messages", USER), extra_body=more)


async def test_a_judge_that_breaks_the_output_format_is_502_judge_failed(
    fake_engines: FakeEngines, gateway: str
) -> None:
    fake_engines.let("judge", Script(ending="break"))
    with pytest.raises(openai.InternalServerError) as raised:
        await ask(gateway, response_format={"type": "json_object"})
    assert (raised.value.status_code, raised.value.code) == (502, "judge_failed")


async def test_a_members_image_must_come_inside_the_request(gateway: str) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.org/cat.png"}}
    with pytest.raises(openai.BadRequestError, match="fetches nothing"):
        await ask(gateway, model="ann", messages=[{"role": "user", "content": [image]}])


async def test_completions_are_for_single_models(fake_engines: FakeEngines, gateway: str) -> None:
    async with client(gateway) as stock:
        await stock.completions.create(model="ann", prompt="Once")
        assert fake_engines.servers["ann"].bodies[-1]["prompt"] == "Once"
        with pytest.raises(openai.BadRequestError, match="single models"):
            await stock.completions.create(model="cappella/default", prompt="Once")
