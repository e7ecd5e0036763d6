"""The engine over a scripted server: what the wire may bring, and what becomes of it."""

import asyncio
import json
import socket
import warnings
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella.engines import openai
from cappella.engines.address import Address
from cappella.engines.base import EngineStats
from cappella.engines.context_size import ContextSize
from cappella.engines.sanitize import Sanitizer
from cappella.engines.status import EngineStatus
from cappella.engines.vllm import protocol
from cappella.engines.vllm.client import VllmEngine
from cappella.errors import EngineBroke, EngineContextExceeded, EngineError, EngineNotReady, EngineRejected
from cappella.types import Chunk, OutputFormat, Prompt, Sampling, Usage
from support.fake_engines import FakeEngines, eventually
from support.scripted_engine import Script, ScriptedEngine

ASK = [{"role": "user", "content": "Hi"}]
DONE = b"data: [DONE]\n\n"


def event(value: Any) -> bytes:
    return b"data: " + json.dumps(value).encode() + b"\n\n"


def delta(**fields: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": fields, "finish_reason": None}]}


async def chat(engine: VllmEngine, **sampling: Any) -> list[Chunk]:
    return [chunk async for chunk in engine.chat(Prompt(ASK), Sampling(**sampling))]


@asynccontextmanager
async def answering(folder: Path, *pieces: bytes, status: int = 200) -> AsyncIterator[VllmEngine]:
    """An engine whose server sends these very bytes, whatever it is asked."""

    async def reply(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(status=status)
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
            await asyncio.sleep(0)
        return response

    app = web.Application(client_max_size=64 << 20)
    app.router.add_route("*", "/{path:.*}", reply)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    socket = folder / "raw.sock"
    await web.UnixSite(runner, str(socket)).start()
    engine = VllmEngine(socket, EngineStatus("raw", "ready"))
    try:
        yield engine
    finally:
        await engine.close()
        await runner.cleanup()
        socket.unlink(missing_ok=True)


async def test_a_stream_as_vllm_sends_it_is_decoded(tmp_path: Path) -> None:
    head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "a"}
    first = {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
    last = {"index": 0, "delta": {"content": "!"}, "finish_reason": "stop", "stop_reason": None}
    usage = {"prompt_tokens": 14, "total_tokens": 17, "completion_tokens": 3}
    details = {"prompt_tokens_details": {"cached_tokens": 8}}
    pieces = (
        event({**head, "choices": [first], "prompt_token_ids": None}),
        event({**head, **delta(content="Hé")}),
        event({**head, **delta(reasoning="hm")}),
        event({**head, **delta(reasoning_content="mm")}),
        event({**head, "choices": [last]}),
        event({**head, "choices": [], "usage": {**usage, **details}}),
        DONE,
    )
    async with answering(tmp_path, *pieces) as engine:
        got = await chat(engine)
    assert "".join(chunk.content for chunk in got) == "Hé!"
    assert "".join(chunk.reasoning for chunk in got) == "hmmm"
    assert [chunk.finish_reason for chunk in got if chunk.finish_reason] == ["stop"]
    assert got[-1].usage == Usage(prompt_tokens=14, cached_tokens=8, completion_tokens=3)


async def test_events_that_arrive_in_splinters_are_put_together(tmp_path: Path) -> None:
    whole = event(delta(content="héllo")) + b": a comment\n\nevent: x\n\n" + event(delta(content=" you")) + DONE
    async with answering(tmp_path, *(whole[i : i + 7] for i in range(0, len(whole), 7))) as engine:
        assert "".join(chunk.content for chunk in await chat(engine)) == "héllo you"


async def test_texts_that_arrive_together_are_one_chunk_and_whatever_else_stays_apart() -> None:
    async def parts() -> AsyncIterator[bytes]:
        other = {"choices": [{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]}
        last = {"choices": [{"index": 0, "delta": {"content": "!"}, "finish_reason": "stop"}]}
        told = [delta(content="a"), delta(content="b"), other, delta(content="c"), delta(reasoning="hm"), last]
        yield b"".join(event(each) for each in told)
        yield event(delta(content="d")) + event(delta(content="e")) + b"data: {not json\n\n"

    got: list[Chunk] = []

    async def read() -> None:
        async for chunk in openai.chunks(parts()):
            got.append(chunk)

    with pytest.raises(EngineBroke):
        await read()
    assert [(chunk.sample, chunk.content) for chunk in got] == [
        (0, "ab"),
        (1, "x"),
        (0, "c"),
        (0, ""),
        (0, "!"),
        (0, "de"),
    ]
    assert [chunk.finish_reason for chunk in got] == [None, None, None, None, "stop", None]


async def test_a_line_of_a_megabyte_is_one_chunk(tmp_path: Path) -> None:
    text = "x" * (1 << 20)
    async with answering(tmp_path, event(delta(content=text)), DONE) as engine:
        assert [chunk.content for chunk in await chat(engine)] == [text]


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ((), "ended before its end mark"),
        ((event(delta(content="half")),), "ended before its end mark"),
        ((b"data: {not json\n\n",), "an invalid chunk"),
        ((b"data: \xff\xfe\n\n",), "an invalid chunk"),
        ((b"data: 7\n\n",), "an invalid chunk"),
        ((b"data: null\n\n",), "an invalid chunk"),
        ((event({"choices": [7]}),), "an invalid chunk"),
        ((event({"choices": [{}]}),), "an invalid chunk"),
        ((event({"choices": [{"delta": None}]}),), "an invalid chunk"),
        ((event({"choices": [], "usage": 7}),), "an invalid chunk"),
        ((event({"error": {"message": "out of memory", "code": 500}}),), r"failed \(500\)"),
        ((event({"error": {}}),), r"failed \(no status\)"),
        ((event({"error": None}),), "without a message"),
        ((b"<html>no stream at all</html>",), "ended before its end mark"),
        ((b"data: " + b"x" * (5 << 20),), "an event of more than"),
    ],
)
async def test_a_stream_that_holds_no_whole_answer_is_broken(
    tmp_path: Path, pieces: tuple[bytes, ...], says: str
) -> None:
    async with answering(tmp_path, *pieces) as engine:
        with pytest.raises(EngineBroke, match=says):
            await chat(engine)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "delta": ANY_JSON | st.fixed_dictionaries({}, optional={"content": ANY_JSON, "reasoning": ANY_JSON}),
        "finish_reason": ANY_JSON,
    },
)
USAGE = st.fixed_dictionaries({}, optional={"prompt_tokens": ANY_JSON, "prompt_tokens_details": ANY_JSON})
EVENT = st.fixed_dictionaries(
    {}, optional={"choices": ANY_JSON | st.lists(CHOICE, max_size=2), "usage": ANY_JSON | USAGE, "error": ANY_JSON}
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(value=ANY_JSON | EVENT)
async def test_whatever_an_event_holds_decoding_it_ends_in_chunks_or_an_engine_error(
    tmp_path: Path, value: Any
) -> None:
    async with answering(tmp_path, event(value), DONE) as engine:
        try:
            got = await chat(engine)
        except EngineError:
            return
    assert len(got) == 1


@pytest.mark.parametrize(
    "value",
    [
        delta(content=7),
        delta(content=["x"]),
        delta(reasoning={"x": 1}),
        {"choices": [{"delta": {}, "finish_reason": 7}]},
        {"choices": [], "usage": {"prompt_tokens": "x"}},
    ],
)
async def test_a_value_of_the_wrong_type_breaks_the_stream(tmp_path: Path, value: Any) -> None:
    async with answering(tmp_path, event(value), DONE) as engine:
        with pytest.raises(EngineBroke):
            await chat(engine)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (400, {"error": {"message": "long", "param": "input_tokens"}}, EngineContextExceeded, 400),
        (400, {"error": {"message": "long", "param": "max_completion_tokens"}}, EngineContextExceeded, 400),
        (400, {"error": {"message": "bad", "param": "temperature"}}, EngineRejected, 400),
        (400, {"error": {"message": "bad", "param": ["temperature"]}}, EngineRejected, 400),
        (422, {"error": {"message": "bad", "param": "input_tokens"}}, EngineRejected, 422),
        (429, {"error": {"message": "busy"}}, EngineRejected, 429),
        (500, {"error": {"message": "boom", "param": None}}, EngineBroke, 502),
        (500, {"error": "boom"}, EngineBroke, 502),
        (500, {"detail": "boom"}, EngineBroke, 502),
        (500, [], EngineBroke, 502),
        (404, None, EngineBroke, 502),
    ],
)
async def test_a_refusal_is_told_apart_from_a_breakdown(
    tmp_path: Path, status: int, body: Any, kind: type[EngineError], code: int
) -> None:
    async with answering(tmp_path, json.dumps(body).encode(), status=status) as engine:
        with pytest.raises(EngineError) as raised:
            await chat(engine)
    assert (type(raised.value), raised.value.status_code) == (kind, code)


async def test_a_page_instead_of_an_error_body_is_a_breakdown(tmp_path: Path) -> None:
    async with answering(tmp_path, b"<html>Bad Gateway</html>", status=502) as engine:
        with pytest.raises(EngineBroke, match="502"):
            await chat(engine)


async def test_a_server_that_is_not_there_is_an_engine_error(tmp_path: Path) -> None:
    engine = VllmEngine(tmp_path / "none.sock", EngineStatus("ghost", "ready"))
    for call in (chat(engine), engine.probe(), engine.metrics()):
        with pytest.raises(EngineBroke, match="ghost"):
            await call
    assert not await engine.healthy()
    await engine.close()


@pytest.mark.parametrize("state", ["waiting", "loading", "restarting", "failed", "stopped"])
async def test_an_engine_that_is_not_ready_is_not_called_and_still_probed(
    fake_engines: FakeEngines, state: Any
) -> None:
    engine = fake_engines.engines["ann"]
    engine.status.state = state
    with pytest.raises(EngineNotReady, match=f"ann is {state}"):
        await chat(engine)
    with pytest.raises(EngineNotReady):
        async with engine.forward("/v1/chat/completions", b"{}"):
            pass
    assert not fake_engines.servers["ann"].bodies
    await engine.probe()
    assert fake_engines.servers["ann"].bodies[0]["max_completion_tokens"] == 1


async def test_only_what_is_set_is_sent_and_always_as_a_stream_with_usage(fake_engines: FakeEngines) -> None:
    await chat(fake_engines.engines["ann"], temperature=0.0, stop=("x",))
    assert fake_engines.servers["ann"].bodies[0] == {
        "model": "ann",
        "messages": ASK,
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.0,
        "stop": ["x"],
    }


async def test_closing_a_half_read_answer_aborts_it_in_the_engine(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("a",), ending="hang"))
    async with aclosing(fake_engines.engines["ann"].chat(Prompt(ASK), Sampling())) as chunks:
        async for chunk in chunks:
            if chunk.content:
                break
        assert fake_engines.servers["ann"].running == 1
    assert await eventually(lambda: fake_engines.servers["ann"].running == 0)
    assert fake_engines.servers["ann"].aborted == 1


async def test_leaving_a_forwarded_reply_aborts_it_in_the_engine(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("a",), ending="hang"))
    async with fake_engines.engines["ann"].forward("/v1/chat/completions", b'{"stream": true}') as reply:
        assert (reply.status_code, reply.content_type) == (200, "text/event-stream")
        await anext(aiter(reply.body))
    assert await eventually(lambda: fake_engines.servers["ann"].aborted == 1)


async def test_many_calls_go_to_one_engine_at_once(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("a",), ending="hang"))
    calls = [asyncio.create_task(chat(fake_engines.engines["ann"])) for _ in range(100)]
    assert await eventually(lambda: fake_engines.servers["ann"].running == 100, 10)
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)
    assert await eventually(lambda: fake_engines.servers["ann"].running == 0, 5)


async def test_a_closed_engine_connects_anew(fake_engines: FakeEngines) -> None:
    engine = fake_engines.engines["ann"]
    await chat(engine)
    await engine.close()
    assert (await chat(engine))[-1].usage


async def test_healthy_is_what_the_server_says(fake_engines: FakeEngines) -> None:
    assert await fake_engines.engines["ann"].healthy()
    fake_engines.servers["ann"].healthy = False
    assert not await fake_engines.engines["ann"].healthy()


async def test_a_prompt_of_megabytes_is_sent_without_a_warning(fake_engines: FakeEngines) -> None:
    text = "x" * (3 << 20)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        async with aclosing(
            fake_engines.engines["ann"].chat(Prompt([{"role": "user", "content": text}]), Sampling())
        ) as chunks:
            assert [chunk.content async for chunk in chunks][-1] == ""
    assert fake_engines.servers["ann"].bodies[0]["messages"][0]["content"] == text
    assert not [str(each.message)[:80] for each in seen]


@pytest.mark.parametrize(
    ("form", "sent"),
    [
        (OutputFormat("structured_outputs", {"choice": ["a"]}), {"structured_outputs": {"choice": ["a"]}}),
        (OutputFormat("structured_outputs", {"json": "{}"}), {"structured_outputs": {"json": protocol.SPACING}}),
        (
            OutputFormat("structured_outputs", {"json_object": True}),
            {"structured_outputs": {"json": {"type": "object", **protocol.SPACING}}},
        ),
        (
            OutputFormat("response_format", {"type": "json_object"}),
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "object", "schema": {"type": "object", **protocol.SPACING}},
                }
            },
        ),
    ],
)
def test_every_kind_of_json_is_held_to_one_spelling(form: OutputFormat, sent: dict[str, Any]) -> None:
    assert sent.items() <= protocol.body("ann", Prompt(ASK, output_format=form), Sampling()).items()


@pytest.mark.parametrize(
    ("prompt", "interval"),
    [
        (Prompt(ASK), None),
        (Prompt(ASK, watched=False), protocol.UNWATCHED_INTERVAL_TOKENS),
        (Prompt(ASK, tools=[{"type": "function", "function": {"name": "f"}}], watched=False), None),
    ],
)
def test_only_an_answer_that_nobody_watches_comes_many_tokens_at_a_time(prompt: Prompt, interval: int | None) -> None:
    assert protocol.body("ann", prompt, Sampling()).get("stream_interval") == interval


async def test_in_a_crowd_a_watched_answer_comes_a_few_tokens_at_a_time(fake_engines: FakeEngines) -> None:
    for crowd, interval in (
        (0, None),
        (protocol.CONGESTED_STREAMS - 1, None),
        (protocol.CONGESTED_STREAMS, 2),
        (100 * protocol.CONGESTED_STREAMS, 4),
    ):
        fake_engines.engines["ann"].in_flight = crowd
        await chat(fake_engines.engines["ann"])
        assert fake_engines.servers["ann"].bodies[-1].get("stream_interval") == interval
        assert fake_engines.engines["ann"].in_flight == crowd


async def test_calls_in_flight_fail_when_the_engine_is_closed(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("one", "two"), ending="hang"))
    engine = fake_engines.engines["ann"]
    heard = []

    async def call() -> None:
        async for chunk in engine.chat(Prompt([{"role": "user", "content": "?"}]), Sampling()):
            heard.append(chunk.content)

    calling = asyncio.create_task(call())
    assert await eventually(lambda: "two" in "".join(heard))
    await engine.close()
    with pytest.raises(EngineBroke, match="ann broke off"):
        await asyncio.wait_for(calling, 2)


async def test_figures_are_summed_over_series_and_what_is_no_number_is_left_out(fake_engines: FakeEngines) -> None:
    fake_engines.servers["ann"].page_status = 200
    fake_engines.servers["ann"].page = (
        'vllm:num_requests_running{model_name="a"} 2\nvllm:num_requests_running{model_name="b"} 1\n'
        'vllm:num_requests_waiting{model_name="a"} NaN\nvllm:kv_cache_usage_perc{model_name="a"} 0.5\n'
        'vllm:generation_tokens_total{model_name="a"} many\nother{x="y"} 3\n'
    )
    assert await fake_engines.engines["ann"].stats() == EngineStats(kv_usage=0.5, running=3)


@pytest.mark.parametrize(
    "content", ["x" * 101, [{"type": "text", "text": "x" * 60}, {"type": "text", "text": "y" * 60}]]
)
async def test_a_text_longer_than_any_context_is_refused_before_it_is_read(tmp_path: Path, content: Any) -> None:
    server = ScriptedEngine("ann", lambda _: Script())
    await server.start(tmp_path)
    engine = VllmEngine(tmp_path / "ann.sock", EngineStatus("ann", "ready"), Untouched(), context=ContextSize(10, 10))
    prompt = Prompt([{"role": "user", "content": content}])
    try:
        with pytest.raises(EngineContextExceeded, match=r"context of ann has room for 100: 10 tokens"):
            [chunk async for chunk in engine.chat(prompt, Sampling())]
        with pytest.raises(EngineContextExceeded):
            await engine.count_tokens(prompt)
        assert (server.bodies, server.counted) == ([], 0)
    finally:
        await engine.close()
        await server.stop()


class Untouched(Sanitizer):
    """Reads no prompt."""

    def sanitize(self, prompt: Prompt) -> Prompt:
        raise AssertionError("it was read")


@pytest.mark.parametrize(("asked", "sent"), [(9, 9), (10, None), (32_000, None), (None, None)])
async def test_a_limit_as_large_as_the_context_is_no_limit(tmp_path: Path, asked: int | None, sent: int | None) -> None:
    server = ScriptedEngine("ann", lambda _: Script())
    await server.start(tmp_path)
    engine = VllmEngine(tmp_path / "ann.sock", EngineStatus("ann", "ready"), context=ContextSize(10, 10))
    try:
        await chat(engine, max_completion_tokens=asked)
        assert [body.get("max_completion_tokens") for body in server.bodies] == [sent]
    finally:
        await engine.close()
        await server.stop()


@pytest.mark.parametrize("host", ["255.255.255.255", "224.0.0.1"])
async def test_a_network_without_a_way_to_the_server_is_no_death_of_its_core(host: str) -> None:
    """The kernel has no route for a stream to a broadcast or to a group."""
    engine = VllmEngine(Address(f"http://{host}:9/v1", started_here=True), EngineStatus("ann", "ready"))
    try:
        with pytest.raises(EngineBroke, match="no connection"):
            await engine.healthy()
    finally:
        await engine.close()


async def test_a_port_and_a_path_where_nobody_listens_are(tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        refuses = Address(f"http://127.0.0.1:{bound.getsockname()[1]}/v1", started_here=True)
        for address in (refuses, tmp_path / "engine.sock"):
            engine = VllmEngine(address, EngineStatus("ann", "ready"))
            assert not await engine.healthy()
            await engine.close()
