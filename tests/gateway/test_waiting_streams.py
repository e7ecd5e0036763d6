"""A stream that waits for its engines says so at once; what is known before is still a status, what comes later an event."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import aiohttp
import pytest
from openai import AsyncOpenAI

from cappella.ensemble import stream
from cappella.errors import Overloaded
from cappella.gateway.formats import sse
from support.fake_engines import MEMBERS, FakeEngines, busy_config, eventually, serving
from support.scripted_engine import Json, Script
from support.sleeper import Sleeper

CHAT, RESPONSES, MESSAGES, OLLAMA = "/v1/chat/completions", "/v1/responses", "/v1/messages", "/api/chat"
USER: Json = {"messages": [{"role": "user", "content": "Hi"}]}
BODIES: dict[str, Json] = {
    CHAT: USER,
    RESPONSES: {"input": "Hi"},
    MESSAGES: {**USER, "max_tokens": 50},
    OLLAMA: USER,
}
ENSEMBLE = "cappella/default"
TARGETS = (ENSEMBLE, "ann")


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream begins at once, and says nothing twice."""
    monkeypatch.setattr(stream, "EARLY_FAILURE_S", 0.0)
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 3600.0)


class Full:
    """A gateway whose engines are all in use until `free`."""

    def __init__(self, url: str, http: aiohttp.ClientSession, fake_engines: FakeEngines, held: AsyncExitStack) -> None:
        self.url, self._http = url, http
        self.free = held.aclose
        self.engines = fake_engines

    @asynccontextmanager
    async def asking(self, path: str, model: str, **more: Any) -> AsyncIterator[aiohttp.ClientResponse]:
        body = {"model": model, "stream": True, **BODIES[path], **more}
        async with self._http.post(self.url + path, json=body) as reply:
            yield reply

    async def waiting(self, model: str) -> bool:
        return await eventually(lambda: self.engines.reloader.state.admission.waiting.get(model) == 1)


@pytest.fixture
async def full(fake_engines: FakeEngines) -> AsyncIterator[Full]:
    async with (
        serving(fake_engines, busy_config()) as url,
        aiohttp.ClientSession() as http,
        AsyncExitStack() as held,
    ):
        admission = fake_engines.reloader.state.admission
        await held.enter_async_context(admission.slot("others", dict.fromkeys((*MEMBERS, "judge"), 2)))
        yield Full(url, http, fake_engines, held)


def events(text: str) -> list[Json]:
    lines = [line.removeprefix("data: ") for line in text.splitlines()]
    return [json.loads(line) for line in lines if line.startswith("{")]


def said(path: str, sent: list[Json]) -> str:
    """The text of the answer."""
    if path == CHAT:
        return "".join(choice["delta"].get("content") or "" for each in sent for choice in each["choices"])
    if path == OLLAMA:
        return "".join(each["message"]["content"] for each in sent)
    return "".join(str(each.get("delta", {}).get("text", "")) for each in sent if path == MESSAGES)


@pytest.mark.parametrize("model", TARGETS)
@pytest.mark.parametrize("path", BODIES)
async def test_a_stream_that_waits_has_a_first_line_and_then_its_answer(full: Full, path: str, model: str) -> None:
    async with full.asking(path, model) as reply:
        first = await reply.content.readline()
        assert (reply.status, await full.waiting(model)) == (200, True)
        assert all(not server.bodies for server in full.engines.servers.values())
        if path == OLLAMA:
            assert (reply.content_type, json.loads(first)["done"]) == ("application/x-ndjson", False)
        else:
            own = path == RESPONSES and model == ENSEMBLE
            assert reply.content_type == "text/event-stream"
            assert first == (b"event: response.created\n" if own else b": keep-alive\n")
        await full.free()
        rest = await reply.text()
    sent = events(rest)
    if path in (CHAT, OLLAMA):
        assert said(path, sent) == ("The final answer" if model == ENSEMBLE else "Hello there")
    assert "error" not in rest.replace('"error":null', "")


@pytest.mark.parametrize("model", TARGETS)
@pytest.mark.parametrize("path", BODIES)
async def test_one_that_waits_holds_its_body_until_it_is_admitted_or_left(full: Full, path: str, model: str) -> None:
    bodies = full.engines.reloader.state.bodies
    async with full.asking(path, model, user="u" * 5000) as reply:
        await reply.content.readline()
        assert await full.waiting(model)
        assert bodies.held > 5000
    assert await eventually(lambda: bodies.held == 0)
    for server in full.engines.servers.values():
        full.engines.let(server.model, Script(ending="held"))
    async with full.asking(path, model, user="u" * 5000) as reply:
        await reply.content.readline()
        await full.free()
        assert await eventually(lambda: full.engines.running > 0)
        assert bodies.held == 0


async def test_a_response_has_its_id_before_it_is_in_progress(full: Full) -> None:
    async with full.asking(RESPONSES, ENSEMBLE) as reply:
        assert await reply.content.readline() == b"event: response.created\n"
        created = json.loads((await reply.content.readline()).removeprefix(b"data: "))
        assert await full.waiting(ENSEMBLE)
        await full.free()
        sent = [created, *events(await reply.text())]
    assert [each["type"] for each in sent[:2]] == ["response.created", "response.in_progress"]
    assert [each["sequence_number"] for each in sent] == list(range(len(sent)))
    assert {each["response"]["id"] for each in sent if "response" in each} == {created["response"]["id"]}
    assert sent[-1]["type"] == "response.completed"


def failure(path: str, model: str, sent: list[Json]) -> Json:
    """The error in the last event of a stream, in the form of its API."""
    last = sent[-1]
    if path == RESPONSES and model == ENSEMBLE:
        assert last["type"] == "response.failed"
        error: Json = last["response"]["error"]
        return error
    if path == RESPONSES:
        assert last["type"] == "error"
        return last
    if path == MESSAGES:
        assert last["type"] == "error"
    return last if path == OLLAMA else dict(last["error"])


@pytest.mark.parametrize("model", TARGETS)
@pytest.mark.parametrize("path", BODIES)
async def test_one_that_loses_its_place_in_the_queue_is_told_by_an_event(full: Full, path: str, model: str) -> None:
    async with full.asking(path, model) as reply:
        await reply.content.readline()
        assert await full.waiting(model)
        (lane,) = [
            lane for lane in full.engines.reloader.state.admission._queue.lanes.values() if lane[0].lane[0] == model
        ]
        lane[0].admitted.set_exception(Overloaded("others need the place", 1))
        sent = events(await reply.text())
    assert failure(path, model, sent)["code"] == "overloaded"


async def test_a_deadline_that_passes_in_the_queue_is_told_by_an_event(full: Full) -> None:
    async with full.asking(CHAT, ENSEMBLE, fusion={"deadline_seconds": 0.2}) as reply:
        text = await reply.text()
    assert (reply.status, events(text)[-1]["error"]["code"]) == (200, "deadline_exceeded")
    assert text.endswith("data: [DONE]\n\n")


@pytest.mark.parametrize("path", BODIES)
async def test_what_the_engine_refuses_after_a_wait_is_told_by_an_event(full: Full, path: str) -> None:
    refusal = {"error": {"message": "top_k is odd", "type": "BadRequestError", "param": "top_k", "code": 400}}
    full.engines.let("ann", Script(refuse=(400, refusal)))
    async with full.asking(path, "ann") as reply:
        await reply.content.readline()
        await full.free()
        sent = events(await reply.text())
    assert "top_k is odd" in json.dumps(failure(path, "ann", sent))


@pytest.mark.parametrize("model", TARGETS)
async def test_a_queue_that_is_full_is_a_status(full: Full, model: str) -> None:
    async with full.asking(CHAT, model) as reply:
        await reply.content.readline()
        async with full.asking(CHAT, model) as refused:
            assert (refused.status, (await refused.json())["error"]["code"]) == (429, "overloaded")
            assert int(refused.headers["Retry-After"]) >= 1


@pytest.mark.parametrize("model", TARGETS)
async def test_one_that_could_not_be_answered_now_does_not_wait_for_that(full: Full, model: str) -> None:
    for engine in full.engines.engines.values():
        engine.status = replace(engine.status, state="loading")
    async with full.asking(CHAT, model) as reply:
        assert (reply.status, (await reply.json())["error"]["code"]) == (503, "model_not_ready")
    assert await eventually(lambda: not full.engines.reloader.state.admission.waiting[model])


@pytest.mark.parametrize("model", TARGETS)
async def test_a_client_that_leaves_gives_its_place_back(full: Full, model: str) -> None:
    async with full.asking(CHAT, model) as reply:
        await reply.content.readline()
        assert await full.waiting(model)
    admission = full.engines.reloader.state.admission
    assert await eventually(lambda: admission.waiting[model] == 0)
    await full.free()
    assert await eventually(lambda: not admission.in_flight)
    assert full.engines.servers["ann"].bodies == []


@pytest.mark.parametrize("model", TARGETS)
async def test_a_drain_ends_one_that_waits(full: Full, model: str) -> None:
    async with full.asking(CHAT, model) as reply:
        await reply.content.readline()
        assert await full.waiting(model)
        assert await full.engines.reloader.drain(0.0) == 1
        assert events(await reply.text())[-1]["error"]["code"] == "shutting_down"


async def test_an_engine_that_is_slow_to_speak_is_waited_for_too(full: Full) -> None:
    await full.free()
    pace = asyncio.Semaphore(0)
    full.engines.let("ann", Script(pace=pace))
    async with full.asking(CHAT, "ann") as reply:
        await reply.content.readline()
        pace.release()
        pace.release()
        assert said(CHAT, events(await reply.text())) == "Hello there"


async def test_an_engine_that_wakes_first_keeps_no_first_line_back(full: Full) -> None:
    await full.free()
    sleeper = Sleeper(full.engines, "ann")
    async with asyncio.timeout(60), full.asking(CHAT, "ann") as reply:
        assert await reply.content.readline() == b": keep-alive\n"
        assert sleeper.is_waited_for.is_set()
        sleeper.wakes.set()
        assert said(CHAT, events(await reply.text())) == "Hello there"


@pytest.mark.parametrize("model", TARGETS)
async def test_the_stock_client_reads_a_stream_that_had_to_wait(full: Full, model: str) -> None:
    async with AsyncOpenAI(base_url=f"{full.url}/v1", api_key="none", max_retries=0) as client:
        begun = await client.chat.completions.create(
            model=model, stream=True, messages=[{"role": "user", "content": "Hi"}]
        )
        assert await full.waiting(model)
        await full.free()
        said = "".join([chunk.choices[0].delta.content or "" async for chunk in begun if chunk.choices])
    assert said == ("The final answer" if model == ENSEMBLE else "Hello there")


async def test_the_stock_client_reads_a_response_that_had_to_wait(full: Full) -> None:
    async with (
        AsyncOpenAI(base_url=f"{full.url}/v1", api_key="none", max_retries=0) as client,
        client.responses.stream(model=ENSEMBLE, input="Hi") as begun,
    ):
        assert (await anext(aiter(begun))).type == "response.created"
        assert await full.waiting(ENSEMBLE)
        await full.free()
        assert (await begun.get_final_response()).output_text == "The final answer"
