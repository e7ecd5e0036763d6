"""/v1/messages as Anthropic's own client reads it."""

from dataclasses import replace
from typing import Any

import pytest

from cappella.ensemble import stream
from support.fake_engines import MEMBERS, FakeEngines, judge_script
from support.scripted_engine import Script

USER: Any = [{"role": "user", "content": "Who is Ann?"}]
TOOL: Any = {"name": "look_up", "description": "Looks.", "input_schema": {"type": "object"}}
CALL = Script((), reasoning="I look.", calls=(("look_up", '{"name": "Ann"}'),), finish_reason="tool_calls")


def client(url: str) -> Any:
    from anthropic import AsyncAnthropic

    return AsyncAnthropic(base_url=url, api_key="none", max_retries=0)


async def ask(url: str, **more: Any) -> Any:
    wanted = {"model": "cappella/default", "messages": USER, "max_tokens": 99, **more}
    async with client(url) as stock:
        return await stock.messages.create(**wanted)


async def test_an_ensemble_answers_as_a_message(fake_engines: FakeEngines, gateway: str) -> None:
    reply = await ask(gateway, system="Be brief.", stop_sequences=["END"])
    assert (reply.content[0].text, reply.stop_reason) == ("The final answer", "end_turn")
    assert reply.model_dump()["fusion"]["status"] == "ok"
    assert (reply.usage.input_tokens, reply.usage.cache_read_input_tokens) == (6, 4)
    assert fake_engines.servers["ann"].bodies[-1]["messages"][0] == {"role": "system", "content": "Be brief."}
    final = fake_engines.servers["judge"].bodies[-1]
    assert (final["stop"], final["max_completion_tokens"]) == (["END"], 99)


async def test_the_clients_stream_helper_follows_a_run(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", judge_script(Script(("one", " two"), reasoning="Hm.")))
    options = {"fusion": {"include_events": True}}
    async with (
        client(gateway) as stock,
        stock.messages.stream(model="cappella/default", messages=USER, max_tokens=99, extra_body=options) as stream,
    ):
        texts = [text async for text in stream.text_stream]
        final = await stream.get_final_message()
    assert texts == ["one", " two"]
    assert [block.type for block in final.content] == ["thinking", "text"]
    assert final.stop_reason == "end_turn"


async def test_a_tool_loop_goes_round(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", CALL)
    reply = await ask(gateway, model="cappella/tools", tools=[TOOL], tool_choice={"type": "any"})
    thinking, use = reply.content
    assert (thinking.thinking, use.name, use.input, reply.stop_reason) == (
        "I look.",
        "look_up",
        {"name": "Ann"},
        "tool_use",
    )
    assert fake_engines.servers["judge"].bodies[-1]["tool_choice"] == "required"
    fake_engines.let("judge", judge_script())
    said_before = [block.model_dump(exclude_none=True, exclude={"caller"}) for block in reply.content]
    result = {"type": "tool_result", "tool_use_id": use.id, "content": [{"type": "text", "text": "A singer."}]}
    turns: Any = [
        *USER,
        {"role": "assistant", "content": said_before},
        {"role": "user", "content": [result, {"type": "text", "text": "So?"}]},
    ]
    again = await ask(gateway, model="cappella/tools", tools=[TOOL], messages=turns)
    assert again.content[0].text == "The final answer"
    said = fake_engines.servers["ann"].bodies[-1]["messages"]
    assert [turn["role"] for turn in said] == ["user", "assistant", "tool", "user"]
    assert said[1]["tool_calls"][0]["function"] == {"name": "look_up", "arguments": '{"name": "Ann"}'}


async def test_tool_use_is_streamed_in_pieces(fake_engines: FakeEngines, gateway: str) -> None:
    fake_engines.let("judge", CALL)
    async with (
        client(gateway) as stock,
        stock.messages.stream(model="cappella/tools", messages=USER, max_tokens=99, tools=[TOOL]) as stream,
    ):
        final = await stream.get_final_message()
    use = final.content[-1]
    assert use.type == "tool_use"
    assert (use.name, use.input, final.stop_reason) == ("look_up", {"name": "Ann"}, "tool_use")


@pytest.mark.parametrize(
    ("finish", "reason"), [("stop", "end_turn"), ("length", "max_tokens"), ("tool_calls", "end_turn")]
)
async def test_each_finish_reason_has_anthropics_stop_reason(
    fake_engines: FakeEngines, gateway: str, finish: str, reason: str
) -> None:
    fake_engines.let("judge", judge_script(Script(("x",), finish_reason=finish)))
    assert (await ask(gateway)).stop_reason == reason


@pytest.mark.parametrize("finish", ["stop", "tool_calls"])
async def test_a_tool_use_block_has_the_stop_reason_tool_use(
    fake_engines: FakeEngines, gateway: str, finish: str
) -> None:
    fake_engines.let("judge", replace(CALL, finish_reason=finish))
    wanted: Any = {"model": "cappella/tools", "tools": [TOOL], "tool_choice": {"type": "tool", "name": "look_up"}}
    assert (await ask(gateway, **wanted)).stop_reason == "tool_use"
    async with client(gateway) as stock, stock.messages.stream(messages=USER, max_tokens=99, **wanted) as stream:
        assert (await stream.get_final_message()).stop_reason == "tool_use"


@pytest.mark.parametrize("finish", ["stop", "tool_calls", "length"])
async def test_a_call_that_was_cut_has_the_stop_reason_max_tokens(
    fake_engines: FakeEngines, gateway: str, finish: str
) -> None:
    fake_engines.let("judge", Script((), calls=(("look_up", '{"name": "An'),), finish_reason=finish))
    wanted: Any = {"model": "cappella/tools", "tools": [TOOL]}
    assert (await ask(gateway, **wanted)).stop_reason == "max_tokens"
    async with client(gateway) as stock:
        events = await stock.messages.create(messages=USER, max_tokens=99, stream=True, **wanted)
        assert [e.delta.stop_reason async for e in events if e.type == "message_delta"] == ["max_tokens"]


async def test_an_image_is_handed_on_as_data(fake_engines: FakeEngines, gateway: str) -> None:
    import anthropic

    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AA"}}
    with pytest.raises(anthropic.BadRequestError, match="accept images"):
        await ask(gateway, messages=[{"role": "user", "content": [image]}])


async def test_errors_come_in_anthropics_form(fake_engines: FakeEngines, gateway: str) -> None:
    import anthropic

    with pytest.raises(anthropic.NotFoundError) as missing:
        await ask(gateway, model="nobody")
    assert missing.value.body["type"] == "error"  # type: ignore[index]
    with pytest.raises(anthropic.BadRequestError, match="mcp_servers"):
        await ask(gateway, extra_body={"mcp_servers": [{}]})
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="break"))
    with pytest.raises(anthropic.InternalServerError, match="0 of 3"):
        await ask(gateway)


async def test_a_failure_in_mid_stream_is_an_error_event(
    fake_engines: FakeEngines, gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anthropic

    monkeypatch.setattr(stream, "EARLY_FAILURE_S", 0.0)
    for name in MEMBERS:
        fake_engines.let(name, Script(("I",), pause_s=0.05, ending="break"))
    with pytest.raises(anthropic.APIStatusError, match="0 of 3"):
        await drained(gateway)


async def drained(url: str) -> None:
    """A whole stream, read and forgotten."""
    async with client(url) as stock:
        stream = await stock.messages.create(model="cappella/default", messages=USER, max_tokens=9, stream=True)
        async for _ in stream:
            pass


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize("calls", [True, False])
async def test_a_models_own_reply_that_calls_a_tool_stops_for_it(
    fake_engines: FakeEngines, gateway: str, streams: bool, calls: bool
) -> None:
    """Engines say `end_turn` for a call of a named tool."""
    fake_engines.let("ann", CALL if calls else Script(('say "tool_use"',)))
    wanted = {"model": "ann", "messages": USER, "max_tokens": 99, "tools": [TOOL]}
    named: Any = {"type": "tool", "name": "look_up"}
    async with client(gateway) as stock:
        if not streams:
            reply: Any = await stock.messages.create(**wanted, tool_choice=named)
        elif calls:
            async with stock.messages.stream(**wanted, tool_choice=named) as events:
                reply = await events.get_final_message()
        else:
            return
    kinds = [(block.type, block.input if calls else block.text) for block in reply.content]
    assert kinds == ([("tool_use", {"name": "Ann"})] if calls else [("text", 'say "tool_use"')])
    assert reply.stop_reason == ("tool_use" if calls else "end_turn")
