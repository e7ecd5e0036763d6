"""Streams as the official clients read them."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionChunk

from cappella.ensemble import stream
from cappella.gateway.formats import sse
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, eventually, judge_script
from support.node_client import HAS_NODE, run_node
from support.scripted_engine import Script


async def lines(url: str, **more: Any) -> AsyncIterator[str]:
    """Lines of a stream."""
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **more}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        assert reply.content_type == "text/event-stream"
        async for line in reply.content:
            if line.strip():
                yield line.decode().rstrip("\n")


def content(line: str) -> str:
    """The piece of the answer that a line brings."""
    choices = json.loads(line.removeprefix("data: "))["choices"] if line.startswith("data: {") else []
    return "".join(choice["delta"].get("content") or "" for choice in choices)


@pytest.fixture
def no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream begins at once, and not after the moment in which an early failure gets a status code."""
    monkeypatch.setattr(stream, "EARLY_FAILURE_S", 0.0)


async def chunks(url: str, **more: Any) -> list[ChatCompletionChunk]:
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="cappella/default", messages=[{"role": "user", "content": "Hi"}], stream=True, **more
        )
        return [chunk async for chunk in stream]


def text(got: list[ChatCompletionChunk]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in got if chunk.choices)


async def test_the_stock_client_reads_the_answer_and_the_trace(gateway: str) -> None:
    got = await chunks(gateway)
    assert text(got) == "The final answer"
    assert got[0].choices[0].delta.role == "assistant"
    assert got[-1].choices[0].finish_reason == "stop"
    last = got[-1].model_dump()
    assert (last["fusion"]["status"], last["fusion"]["usage"]["prompt_tokens"]) == ("ok", 50)
    assert len({chunk.id for chunk in got}) == 1


async def test_include_usage_puts_the_trace_on_a_chunk_without_choices(gateway: str) -> None:
    got = await chunks(gateway, stream_options={"include_usage": True})
    assert got[-1].choices == []
    assert got[-1].usage
    assert got[-1].model_dump()["fusion"]["status"] == "ok"
    assert got[-2].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in got[:-1])


async def test_events_are_complete_chunks_sent_only_on_request(gateway: str) -> None:
    got = await chunks(gateway, extra_body={"fusion": {"include_events": True}})
    events = [event for chunk in got if (event := chunk.model_dump().get("fusion_event"))]
    kinds = [event["type"] for event in events]
    assert kinds[0] == "run.started"
    assert kinds.count("answer.done") == len(MEMBERS)
    said = {
        name: "".join(e["delta"] for e in events if e["type"] == "answer.delta" and e["model"] == name)
        for name in MEMBERS
    }
    assert said == dict.fromkeys(MEMBERS, "Hello there")
    assert "analysis.done" in kinds
    assert text(got) == "The final answer"
    assert not any("fusion_event" in chunk.model_dump() for chunk in await chunks(gateway))


async def told(url: str, **fusion: Any) -> list[Any]:
    """The events of a run's stream."""
    got = [line async for line in lines(url, fusion=fusion) if '"fusion_event"' in line]
    return [json.loads(line.removeprefix("data: "))["fusion_event"] for line in got]


async def test_the_analysis_is_streamed_to_clients_that_include_events(gateway: str, fake_engines: FakeEngines) -> None:
    whole = json.dumps(ANALYSIS)
    fake_engines.let("judge", judge_script(analysis=Script((whole[:40], whole[40:]))))
    events = await told(gateway, include_events=True)
    kinds = [event["type"] for event in events]
    begun, *deltas, done = events[kinds.index("analysis.started") : kinds.index("analysis.done") + 1]
    assert sorted(begun["labels"].items()) == [(letter, begun["labels"][letter]) for letter in "ABC"]
    assert deltas == [{"type": "analysis.delta", "delta": piece} for piece in (whole[:40], whole[40:])]
    assert done["analysis"]["contradictions"][0]["stances"][0]["model"] == begun["labels"]["A"]
    assert await told(gateway, include_events=False) == await told(gateway) == []


async def test_an_analysis_that_breaks_off_is_streamed_up_to_there(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(analysis=Script(('{"consensus": ["both',), ending="break")))
    events = await told(gateway, include_events=True)
    assert [event["delta"] for event in events if event["type"] == "analysis.delta"] == ['{"consensus": ["both']
    assert "analysis.done" not in [event["type"] for event in events]


async def test_the_first_byte_does_not_wait_for_a_slow_panel(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))
    async for line in lines(gateway):
        assert line.startswith("data: {")
        assert fake_engines.running == 3
        break
    assert stream.EARLY_FAILURE_S < 1, "all that holds back the first byte; a client is promised one within a second"


async def test_deltas_come_one_by_one(gateway: str, fake_engines: FakeEngines) -> None:
    pace = asyncio.Semaphore(1)
    fake_engines.let("judge", judge_script(Script(("a", "b", "c", "d"), pace=pace)))
    got = []
    async for line in lines(gateway, fusion={"analysis": "off", "deadline_seconds": 20}):
        if piece := content(line):
            got.append(piece)
            pace.release()
    assert got == ["a", "b", "c", "d"]


async def written(url: str, **fields: Any) -> bytes:
    """All bytes of a run's stream."""
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "stream": True, **fields}
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return await reply.read()


async def test_a_keep_alive_is_one_line_that_ends_no_event(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, no_wait: None
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.001)
    fake_engines.let("ann", Script(pause_s=0.05))
    got = await written(gateway)
    assert b"\n\n: keep-alive\n" in got
    assert b": keep-alive\n\n" not in got
    assert all(part.lstrip(b": keep-alive\n").startswith(b"data: ") for part in got.split(b"\n\n")[:-1])


async def test_keep_alive_comments_are_sent_during_a_silence(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, no_wait: None
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)
    fake_engines.let("ann", Script(ending="held"))
    got = []
    async for line in lines(gateway):
        got.append(line)
        if got.count(": keep-alive") == 5:
            fake_engines.release()
    assert got.count(": keep-alive") >= 5
    assert got[-1] == "data: [DONE]"


async def test_events_that_a_client_does_not_get_send_no_keep_alive(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, no_wait: None
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 3600.0)
    fake_engines.let("ann", Script(pause_s=0.05))
    assert b"keep-alive" not in await written(gateway)


async def test_an_answer_that_begins_at_once_is_not_held_back(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "EARLY_FAILURE_S", 60.0)
    fake_engines.let("judge", judge_script(Script(("a", "b"), ending="hang")))
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with aiohttp.ClientSession() as http, http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
        async for line in reply.content:
            if b'"content":"a"' in line:
                break
    assert await eventually(lambda: fake_engines.running == 0)


WATCHING = {"fusion": {"include_events": True}}


@pytest.mark.parametrize(
    ("path", "fields", "panel", "judge"),
    [
        ("chat/completions", {}, False, False),
        ("chat/completions", {"stream": True}, False, True),
        ("chat/completions", {"stream": True, **WATCHING}, True, True),
        ("chat/completions", WATCHING, False, False),
        ("responses", {"stream": True, **WATCHING}, True, True),
        ("responses", {"stream": True}, False, True),
        ("responses", {}, False, False),
        ("messages", {"stream": True}, False, True),
        ("messages", {"stream": True, **WATCHING}, True, True),
    ],
)
async def test_watched_calls_stream_token_by_token(
    gateway: str, fake_engines: FakeEngines, path: str, fields: dict[str, Any], panel: bool, judge: bool
) -> None:
    asked: Any = {"input": "Hi"} if path == "responses" else {"messages": [{"role": "user", "content": "Hi"}]}
    limit = {"max_tokens": 20} if path == "messages" else {}
    body = {"model": "cappella/default", **asked, **limit, **fields}
    async with aiohttp.ClientSession() as http, http.post(f"{gateway}/v1/{path}", json=body) as reply:
        assert reply.status == 200
        await reply.read()
    watched = {
        name: ["stream_interval" not in body for body in fake_engines.servers[name].bodies]
        for name in fake_engines.servers
    }
    # Who watches the panel watches its comparison, too.
    assert watched == {**{name: [panel] for name in MEMBERS}, "judge": [panel, judge]}


async def test_an_error_in_mid_stream_is_an_event_that_the_client_raises(
    gateway: str, fake_engines: FakeEngines, no_wait: None
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(pause_s=0.05, ending="break"))
    with pytest.raises(openai.APIError, match="members answered"):
        await chunks(gateway)
    got = [line async for line in lines(gateway)]
    assert json.loads(got[-2].removeprefix("data: "))["error"]["code"] == "insufficient_quorum"
    assert got[-1] == "data: [DONE]"


async def test_a_judge_that_breaks_off_in_mid_stream_is_followed_by_a_whole_answer(
    gateway: str, fake_engines: FakeEngines
) -> None:
    fake_engines.let("judge", judge_script(Script(("The fi",), ending="break")))
    got = await chunks(gateway)
    assert text(got) == "The fi\n\nHello there"
    assert got[-1].model_dump()["fusion"]["status"] == "degraded"


@pytest.mark.skipif(not HAS_NODE, reason="no Node.js here")
async def test_the_node_client_reads_every_frame(gateway: str) -> None:
    seen = await asyncio.to_thread(run_node, "stream.mjs", gateway)
    assert seen["text"] == seen["whole"] == "The final answer"
    assert seen["events"][0] == "run.started"
    assert (seen["status"], seen["notFound"]) == ("ok", 404)


@pytest.mark.parametrize("include_usage", [False, True])
@pytest.mark.parametrize("include_events", [False, True])
@pytest.mark.parametrize("analysis", ["before", "alongside", "off"])
async def test_every_mix_of_options_is_a_well_formed_stream(
    gateway: str, include_usage: bool, include_events: bool, analysis: str
) -> None:
    usage = {"stream_options": {"include_usage": True}} if include_usage else {}
    got = await chunks(
        gateway, extra_body={"fusion": {"include_events": include_events, "analysis": analysis}}, **usage
    )
    assert text(got) == "The final answer"
    assert len({(chunk.id, chunk.created, chunk.model, chunk.object) for chunk in got}) == 1
    reasons = [choice.finish_reason for chunk in got for choice in chunk.choices if choice.finish_reason]
    assert reasons == ["stop"]
    assert [chunk for chunk in got if not chunk.choices] == ([got[-1]] if include_usage else [])
    assert sum(chunk.usage is not None for chunk in got) == 1
    assert got[-1].usage


async def test_frames_are_data_lines_and_done_is_the_last(gateway: str) -> None:
    got = [line async for line in lines(gateway, fusion={"include_events": True})]
    assert all(line.startswith("data: ") for line in got)
    assert all(json.loads(line.removeprefix("data: "))["choices"] for line in got[:-1])
    assert (got[-1], got.count("data: [DONE]")) == ("data: [DONE]", 1)


async def test_the_traces_of_a_stream_and_of_a_whole_completion_are_alike(gateway: str) -> None:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], "seed": 3}
    async with aiohttp.ClientSession() as http, http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
        whole = await reply.json()
    streamed = (await chunks(gateway, seed=3))[-1].model_dump()
    assert set(streamed["fusion"]) == set(whole["fusion"])
    assert streamed["fusion"]["labels"] == whole["fusion"]["labels"]
    assert set(streamed["usage"]) >= set(whole["usage"])
