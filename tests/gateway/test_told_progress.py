"""`progress: reasoning`: what panel and judge did, as the reasoning of replies in every API, streamed or not."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, eventually, gateway_config, judge_script, serving
from support.scripted_engine import Script

Json = dict[str, Any]
USER = [{"role": "user", "content": "Say hello."}]
ON: Json = {"progress": "reasoning"}
CHAT, RESPONSES, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"
BODIES: dict[str, Json] = {
    CHAT: {"messages": USER},
    RESPONSES: {"input": "Say hello."},
    MESSAGES: {"messages": USER, "max_tokens": 50},
    OLLAMA: {"messages": USER},
}


async def stream(url: str, path: str, **more: Any) -> AsyncIterator[Json]:
    """The data of each event, or line."""
    body = {"model": "cappella/default", "stream": True, **BODIES[path], **more}
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        async for line in reply.content:
            data = line.removeprefix(b"data: ").strip()
            if data.startswith(b"{"):
                yield json.loads(data)


async def whole(url: str, path: str, **more: Any) -> Json:
    body = {"model": "cappella/default", "stream": False, **BODIES[path], **more}
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body) as reply:
        assert reply.status == 200, await reply.text()
        return dict(await reply.json())


def piece(path: str, event: Json) -> tuple[str, str]:
    """Reasoning and text of one event of a stream."""
    if path == CHAT:
        delta = (event["choices"] or [{"delta": {}}])[0]["delta"]
        assert delta.get("reasoning") == delta.get("reasoning_content")
        return delta.get("reasoning", ""), delta.get("content", "")
    if path == OLLAMA:
        return event["message"].get("thinking", ""), event["message"]["content"]
    if path == RESPONSES:
        reasons = event["type"] in ("response.reasoning_summary_text.delta", "response.reasoning_text.delta")
        return event["delta"] if reasons else "", event["delta"] if event["type"].endswith("output_text.delta") else ""
    delta = event.get("delta", {})
    return delta.get("thinking", ""), delta.get("text", "")


def shown(path: str, reply: Json) -> tuple[str, str]:
    """Reasoning and text of a whole reply."""
    if path == CHAT:
        message = reply["choices"][0]["message"]
        assert message.get("reasoning") == message.get("reasoning_content")
        return message.get("reasoning", ""), message["content"]
    if path == OLLAMA:
        return reply["message"].get("thinking", ""), reply["message"]["content"]
    if path == RESPONSES:
        thoughts = [item for item in reply["output"] if item["type"] == "reasoning"]
        parts = [part["text"] for item in thoughts for part in (*item["summary"], *item.get("content", ()))]
        return "".join(parts), "".join(i["content"][0]["text"] for i in reply["output"] if i["type"] == "message")
    parts = [block.get("thinking", "") for block in reply["content"]]
    return "".join(parts), "".join(block.get("text", "") for block in reply["content"])


def let_members_speak(fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("I say\n\n", f"- {name}")))


@pytest.mark.parametrize("path", BODIES)
async def test_the_members_answers_and_the_comparison_are_told_before_the_answer_and_never_in_it(
    gateway: str, fake_engines: FakeEngines, path: str
) -> None:
    let_members_speak(fake_engines)
    fake_engines.let("bob", Script(ending="break"))
    pieces = [piece(path, event) async for event in stream(gateway, path, fusion=ON)]
    reasoning, text = ("".join(each) for each in zip(*pieces, strict=True))
    kinds = [bool(told) for told, said in pieces if told or said]
    assert (text, kinds) == ("The final answer", sorted(kinds, reverse=True))
    assert reasoning.startswith("**Panel:** ann, bob, cat\n\n")
    assert "**ann:**\n\n> I say\n>\n> - ann\n\n" in reasoning
    assert "**bob** gave no answer: engine broke\n\n" in reasoning
    assert "**judge** compares the answers.\n\n- All agree: both greet\n- They differ on tone: " in reasoning
    assert [told for told, _ in pieces if told.startswith("**ann")] == ["**ann:**\n\n> I say\n>\n> - ann\n\n"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_whole_reply_tells_the_same_before_the_judges_own_reasoning(
    gateway: str, fake_engines: FakeEngines, path: str
) -> None:
    let_members_speak(fake_engines)
    fake_engines.let("judge", judge_script(Script(("Yes.",), reasoning="Hm.")))
    reasoning, text = shown(path, await whole(gateway, path, fusion={**ON, "analysis": "off"}))
    assert text == "Yes."
    assert reasoning.startswith("**Panel:** ann, bob, cat\n\n**")
    assert all(f"**{name}:**\n\n> I say\n>\n> - {name}\n\n" in reasoning for name in MEMBERS)
    assert reasoning.endswith("\n\n---\n\nHm.")


@pytest.mark.parametrize("path", BODIES)
async def test_nothing_is_told_unless_it_is_asked_for(gateway: str, path: str) -> None:
    assert shown(path, await whole(gateway, path)) == ("", "The final answer")
    pieces = [piece(path, event) async for event in stream(gateway, path)]
    assert "".join(told for told, _ in pieces) == ""


@pytest.mark.parametrize("path", BODIES)
async def test_the_first_event_and_the_panel_are_there_while_all_members_are_silent(
    gateway: str, fake_engines: FakeEngines, path: str
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))
    events = stream(gateway, path, fusion={**ON, "analysis": "off"})
    seen = [await anext(events)]
    while not piece(path, seen[-1])[0]:
        seen.append(await anext(events))
    assert piece(path, seen[-1])[0] == "**Panel:** ann, bob, cat\n\n"
    assert fake_engines.ended == []
    assert await eventually(lambda: fake_engines.running == len(MEMBERS))
    fake_engines.release()
    rest = [event async for event in events]
    assert "".join(piece(path, event)[1] for event in rest) == "The final answer"


@pytest.mark.parametrize("path", BODIES)
async def test_there_is_a_first_event_while_all_members_are_silent_also_where_nothing_is_told(
    gateway: str, fake_engines: FakeEngines, path: str
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))
    events = stream(gateway, path)
    assert await anext(events)
    assert fake_engines.ended == []
    fake_engines.release()
    assert [event async for event in events]


async def test_the_stock_client_reads_progress_as_the_summary_of_a_reasoning_item(gateway: str) -> None:
    async with (
        AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client,
        client.responses.stream(model="cappella/default", input="Hi", extra_body={"fusion": ON}) as events,
    ):
        kinds = [event.type async for event in events]
        final: Any = await events.get_final_response()
    assert [item.type for item in final.output] == ["reasoning", "message"]
    (summary,) = final.output[0].summary
    assert summary.text.startswith("**Panel:** ")
    assert final.output_text == "The final answer"
    around = [kind for kind in kinds if "summary" in kind and not kind.endswith("delta")]
    assert [kind.removeprefix("response.reasoning_summary_") for kind in around] == [
        "part.added",
        "text.done",
        "part.done",
    ]


async def test_progress_that_a_client_sends_back_reaches_no_model(gateway: str, fake_engines: FakeEngines) -> None:
    let_members_speak(fake_engines)
    fake_engines.let("judge", judge_script(Script(("Yes.",), reasoning="Hm.")))
    fusion = {**ON, "analysis": "off"}
    message = (await whole(gateway, CHAT, fusion=fusion))["choices"][0]["message"]
    await whole(gateway, CHAT, messages=[*USER, message, *USER])
    sent = fake_engines.servers["ann"].bodies[-1]["messages"]
    assert sent[1]["reasoning"] == "Hm."
    output = (await whole(gateway, RESPONSES, fusion=fusion))["output"]
    await whole(gateway, RESPONSES, input=[*USER, *output, *USER])
    assert fake_engines.servers["ann"].bodies[-1]["messages"] == sent
    content = (await whole(gateway, MESSAGES, fusion=fusion))["content"]
    turns = [*USER, {"role": "assistant", "content": content}, *USER]
    await whole(gateway, MESSAGES, messages=turns)
    assert "**Panel:**" not in json.dumps(fake_engines.servers["ann"].bodies[-1])


async def test_an_ensemble_that_allows_no_overrides_tells_its_progress_on_request(gateway: str) -> None:
    reasoning, _ = shown(CHAT, await whole(gateway, CHAT, model="cappella/fixed", fusion=ON))
    assert reasoning.startswith("**Panel:** ")


async def test_a_config_turns_it_on_but_not_for_clients_that_get_the_events(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, gateway_config(**ON)) as url:
        told = [piece(CHAT, event)[0] async for event in stream(url, CHAT)]
        assert "".join(told).startswith("**Panel:** ")
        events = [event async for event in stream(url, CHAT, fusion={"include_events": True})]
        assert "".join(piece(CHAT, event)[0] for event in events) == ""
        off = await whole(url, CHAT, fusion={"progress": "off"})
        assert shown(CHAT, off) == ("", "The final answer")


async def test_a_gate_that_leaves_the_panel_out_is_told(fake_engines: FakeEngines) -> None:
    gate = {"mode": "rules", "model": "ann", "max_words": 5}
    async with serving(fake_engines, gateway_config(gate=gate, **ON)) as url:
        reasoning, text = shown(CHAT, await whole(url, CHAT))
    assert text == "Hello there"
    assert reasoning.startswith("**Panel:** not asked; ann answers alone: ")


async def test_nothing_is_told_once_the_answer_has_begun(gateway: str, fake_engines: FakeEngines) -> None:
    pace = asyncio.Semaphore(0)
    fake_engines.let("judge", judge_script(analysis=Script((json.dumps(ANALYSIS),), pace=pace)))
    events = stream(gateway, CHAT, fusion={**ON, "analysis": "alongside"})
    pieces = [piece(CHAT, await anext(events))]
    while not pieces[-1][1]:
        pieces.append(piece(CHAT, await anext(events)))
    pace.release()
    rest = [event async for event in events]
    assert "".join(piece(CHAT, event)[0] for event in rest) == ""
    assert rest[-1]["fusion"]["analysis"]["consensus"] == ANALYSIS["consensus"]


@pytest.mark.parametrize("path", [CHAT, MESSAGES, OLLAMA])
@pytest.mark.parametrize("streamed", [False, True])
async def test_reasoning_after_an_answer_that_broke_off_is_told_apart_too(
    gateway: str, fake_engines: FakeEngines, path: str, streamed: bool
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(("Yes.",), reasoning="Hm."))
    fake_engines.let("judge", judge_script(Script(("The fi",), ending="break")))
    fusion = {**ON, "analysis": "off"}
    if streamed:
        pieces = [piece(path, event) async for event in stream(gateway, path, fusion=fusion)]
        reasoning = "".join(told for told, _ in pieces)
        assert "".join(said for _, said in pieces) == "The fi\n\nYes."
    else:
        reasoning, text = shown(path, await whole(gateway, path, fusion=fusion))
        assert text.endswith("Yes.")
    assert (reasoning.endswith("---\n\nHm."), reasoning.count("---")) == (True, 1)
