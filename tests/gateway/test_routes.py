"""Edges of the HTTP face: odd bodies, pass-through to the byte, silent streams whose client leaves."""

import asyncio
import json
import re
from typing import Any

import aiohttp
import openai
import pytest
from openai import AsyncOpenAI

from support.fake_engines import JSON, MEMBERS, FakeEngines, eventually, gateway_config, judge_script, serving
from support.scripted_engine import Script

USER = [{"role": "user", "content": "Say hello."}]


async def send(url: str, data: bytes) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", data=data, headers=JSON) as reply,
    ):
        return reply.status, await reply.json(content_type=None)


async def ask(url: str, **more: Any) -> tuple[int, Any]:
    return await send(url, json.dumps({"model": "cappella/default", "messages": USER, **more}).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b'"text"',
        b"[" * 50_000,
        b'{"a":' * 20_000 + b"1" + b"}" * 20_000,
        b'{"model": "cappella/default", "messages": NaN}',
        b"{}",
        b'{"model": null}',
        b'{"model": ["ann"]}',
    ],
)
async def test_a_body_that_is_no_request_is_400(gateway: str, data: bytes) -> None:
    status, reply = await send(gateway, data)
    assert status == 400
    assert set(reply["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize("model", ["cappella/", "cappella/default ", "Cappella/default", "default", "cappella/ann", ""])
async def test_a_name_that_is_not_quite_a_model_is_404_with_the_known_ones(gateway: str, model: str) -> None:
    status, reply = await ask(gateway, model=model)
    assert (status, reply["error"]["code"]) == (404, "model_not_found")
    assert "cappella/default" in reply["error"]["message"]


async def test_a_body_just_within_the_limit_is_read(gateway: str) -> None:
    assert (await ask(gateway, messages=[{"role": "user", "content": "x" * 190_000}]))[0] == 200
    assert (await ask(gateway, messages=[{"role": "user", "content": "x" * 210_000}]))[0] == 413


@pytest.mark.parametrize("include_intermediate", [False, True])
async def test_partial_texts_are_in_the_trace_of_a_degraded_run(
    gateway: str, fake_engines: FakeEngines, include_intermediate: bool
) -> None:
    fake_engines.let("bob", Script(("half",), ending="break"))
    _, reply = await ask(gateway, fusion={"include_intermediate_responses": include_intermediate})
    (failed,) = reply["fusion"]["failed_models"]
    assert (failed["model"], failed["status_code"], failed["reason"], failed["partial"]) == (
        "bob",
        502,
        "engine_broke",
        "half",
    )
    assert ("responses" in reply["fusion"]) == include_intermediate


async def test_a_degraded_run_says_why(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("judge", judge_script(Script(ending="break")))
    status, reply = await ask(gateway)
    assert (status, reply["choices"][0]["message"]["content"]) == (200, "Hello there")
    assert (reply["fusion"]["status"], reply["fusion"]["failure_reason"]) == ("degraded", "engine_broke")


USAGE = {"stream_options": {"include_usage": True}}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_members_reply_is_the_engines_own_to_the_byte(
    gateway: str, fake_engines: FakeEngines, stream: bool
) -> None:
    raw = json.dumps({"model": "ann", "messages": USER, "stream": stream, "temperature": 0.25}, indent=3).encode()
    async with fake_engines.engines["ann"].forward("/v1/chat/completions", raw) as direct:
        own = b"".join([data async for data in direct.body])
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{gateway}/v1/chat/completions", data=raw, headers=JSON) as reply,
    ):
        assert await reply.read() == own
    first, second = fake_engines.servers["ann"].raw
    # The usage of a stream is asked for, too, and taken out of it again.
    assert second == first or (stream and json.loads(second) == json.loads(first) | USAGE)


async def test_a_members_stream_is_passed_on_piece_by_piece(gateway: str, fake_engines: FakeEngines) -> None:
    pace = asyncio.Semaphore(1)
    fake_engines.let("ann", Script(("a", "b", "c", "d"), pace=pace))
    got = []
    async with AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client:
        stream = await client.chat.completions.create(
            model="ann", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        async with asyncio.timeout(20):
            async for chunk in stream:
                if chunk.choices and (piece := chunk.choices[0].delta.content):
                    got.append(piece)
                    pace.release()
    assert got == ["a", "b", "c", "d"]


async def test_a_member_that_breaks_off_does_not_look_finished(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(("a", "b"), ending="break"))
    data = await ask_raw(gateway, {"model": "ann", "messages": USER, "stream": True})
    assert b'"finish_reason": "stop"' not in data
    assert b'"code":"engine_error"' in data


async def ask_raw(url: str, body: dict[str, Any]) -> bytes:
    async with aiohttp.ClientSession() as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        return await reply.read()


async def test_a_member_whose_server_is_gone_is_502(gateway: str, fake_engines: FakeEngines) -> None:
    await fake_engines.servers["ann"].stop()
    status, reply = await ask(gateway, model="ann")
    assert (status, reply["error"]["code"]) == (502, "engine_error")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_a_client_that_leaves_a_silent_run_aborts_every_inner_call(
    gateway: str, fake_engines: FakeEngines, model: str, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cappella.ensemble.stream.EARLY_FAILURE_S", 0.0)
    for name in MEMBERS:
        fake_engines.let(name, Script(("never",), pause_s=3600))
    call = asyncio.create_task(ask_raw(gateway, {"model": model, "messages": USER, "stream": stream}))
    assert await eventually(lambda: fake_engines.running == (1 if model == "ann" else 3))
    await asyncio.sleep(0.05)  # a stream has begun by then
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await eventually(lambda: fake_engines.running == 0)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_while_the_judge_speaks_aborts_it(
    gateway: str, fake_engines: FakeEngines, stream: bool
) -> None:
    fake_engines.let("judge", judge_script(Script(("a",), ending="hang")))
    call = asyncio.create_task(ask_raw(gateway, {"model": "cappella/default", "messages": USER, "stream": stream}))
    assert await eventually(
        lambda: fake_engines.servers["judge"].running == 1 and len(fake_engines.servers["judge"].bodies) == 2
    )
    call.cancel()
    await asyncio.gather(call, return_exceptions=True)
    assert await eventually(lambda: fake_engines.running == 0)


async def test_the_gateway_stops_while_nothing_runs(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, gateway_config()) as url:
        assert (await ask(url))[0] == 200
    with pytest.raises(aiohttp.ClientConnectionError):
        await ask(url)


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"model": "nobody"}, openai.NotFoundError),
        ({"extra_body": {"fusion": {"x": 1}}}, openai.BadRequestError),
        ({"extra_body": {"fusion": {"analysis_models": ["cappella/default"]}}}, openai.BadRequestError),
    ],
)
async def test_the_stock_client_raises_the_error_that_belongs_to_the_status(
    gateway: str, more: dict[str, Any], kind: type[openai.APIStatusError]
) -> None:
    async with AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client:
        with pytest.raises(kind) as raised:
            await client.chat.completions.create(
                **{"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}], **more}
            )
    assert raised.value.code


async def test_the_stock_client_reads_a_whole_completion_and_the_list_of_models(gateway: str) -> None:
    async with AsyncOpenAI(base_url=f"{gateway}/v1", api_key="none", max_retries=0) as client:
        whole = await client.chat.completions.create(
            model="cappella/default", messages=[{"role": "user", "content": "Hi"}]
        )
        models = [model.id async for model in client.models.list()]
    assert whole.choices[0].message.content == "The final answer"
    assert whole.usage
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    assert "cappella/default" in models


async def test_the_gateway_shows_no_page_that_loads_from_elsewhere(gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{gateway}/redoc") as reply:
            assert reply.status == 404
        async with http.get(f"{gateway}/docs") as reply:
            assert not re.findall(r'(?:src|rel="stylesheet" href)="(?!/)', await reply.text())
