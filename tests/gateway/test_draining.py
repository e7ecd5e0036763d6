"""How a gateway drains: it admits no more, and cancels what outlives the drain with an error of its own."""

import asyncio
import json
from typing import Any

import aiohttp
import pytest

from cappella.errors import ReloadFailed, ShuttingDown
from cappella.gateway.drain import InFlight
from cappella.telemetry import records
from cappella.telemetry.records import RequestRecord
from support.fake_engines import FakeEngines, eventually, judge_script
from support.scripted_engine import Script

PATHS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
SLOW = Script(("a", "b"), pause_s=0.2)
HANGS = Script(("word ",), ending="hang")


def body(path: str, model: str, stream: bool) -> dict[str, Any]:
    asked: dict[str, Any] = {"model": model, "stream": stream}
    if path == "/v1/responses":
        return {**asked, "input": "Hi"}
    return {**asked, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 50}


async def post(url: str, path: str, model: str, stream: bool = False) -> tuple[int, str]:
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body(path, model, stream)) as reply:
        return reply.status, await reply.text()


def last_error(text: str) -> dict[str, Any]:
    """The error in the last event of a stream that holds data."""
    events = [json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")]
    last: dict[str, Any] = events[-1]
    found: dict[str, Any] = last.get("error") or last.get("response", {}).get("error") or last
    return found


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_a_drain_lets_requests_in_flight_finish_and_refuses_new_ones(
    fake_engines: FakeEngines, gateway: str, model: str
) -> None:
    fake_engines.let("ann", SLOW)
    under_way = asyncio.create_task(post(gateway, PATHS[0], model))
    assert await eventually(lambda: fake_engines.reloader.in_flight == 1)
    draining = asyncio.create_task(fake_engines.reloader.drain(20))
    await asyncio.sleep(0)
    status, text = await post(gateway, PATHS[0], model)
    assert (status, json.loads(text)["error"]["code"]) == (503, "shutting_down")
    assert (await under_way)[0] == 200
    assert await draining == 0


async def test_no_reload_begins_once_the_server_stops(fake_engines: FakeEngines, gateway: str) -> None:
    """It would start engines beside those that end."""
    assert await fake_engines.reloader.drain(0) == 0
    with pytest.raises(ReloadFailed, match="The server is stopping"):
        await fake_engines.reloader.reload()


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_a_request_that_outlives_the_drain_gets_shutting_down(
    fake_engines: FakeEngines, gateway: str, model: str
) -> None:
    fake_engines.let("ann", Script(pause_s=60))
    under_way = asyncio.create_task(post(gateway, PATHS[0], model))
    assert await eventually(lambda: fake_engines.running == 1 and fake_engines.reloader.in_flight == 1)
    assert await fake_engines.reloader.drain(0.05) == 1
    status, text = await under_way
    assert (status, json.loads(text)["error"]["code"]) == (503, "shutting_down")
    assert await eventually(lambda: fake_engines.running == 0)


@pytest.mark.parametrize(("path", "model"), [*((path, "cappella/default") for path in PATHS), (PATHS[0], "ann")])
async def test_a_stream_that_outlives_the_drain_ends_with_shutting_down(
    fake_engines: FakeEngines, gateway: str, path: str, model: str
) -> None:
    fake_engines.let("ann", HANGS)
    fake_engines.let("judge", judge_script(final=HANGS))
    if model != "ann":
        fake_engines.let("ann", Script())
    under_way = asyncio.create_task(post(gateway, path, model, stream=True))
    assert await eventually(lambda: fake_engines.running == 1 and fake_engines.reloader.in_flight == 1)
    await asyncio.sleep(0.05)
    assert await fake_engines.reloader.drain(0.05) == 1
    status, text = await under_way
    assert status == 200
    assert last_error(text)["code"] == "shutting_down"
    assert await eventually(lambda: fake_engines.running == 0)


async def test_a_models_stream_that_breaks_off_ends_with_an_error_event(
    fake_engines: FakeEngines, gateway: str
) -> None:
    fake_engines.let("ann", Script(("half", " a word"), ending="break"))
    status, text = await post(gateway, PATHS[0], "ann", stream=True)
    assert status == 200
    assert "half" in text
    assert last_error(text)["code"] == "engine_error"
    assert text.endswith("data: [DONE]\n\n")


async def test_a_run_that_has_a_timeout_of_its_own_keeps_it() -> None:
    records.begin(RequestRecord("POST", PATHS[0]))
    in_flight = InFlight()
    with pytest.raises(TimeoutError):
        async with in_flight.track_task():
            raise TimeoutError
    assert await in_flight.drain(1) == 0
    with pytest.raises(ShuttingDown):
        async with in_flight.track_task():
            pass


async def test_a_request_counts_once_however_often_it_is_tracked() -> None:
    """A model's stream is tracked as a task until its first piece, and as an engine's call from before that on."""
    in_flight, aborted = InFlight(), asyncio.Event()

    async def request() -> None:
        records.begin(RequestRecord("POST", PATHS[0]))
        async with in_flight.track_task():
            with in_flight.track(aborted.set, is_admitted=True):
                await asyncio.Event().wait()

    both = [asyncio.create_task(request()) for _ in range(2)]
    assert await eventually(lambda: in_flight.count == 2)
    assert await in_flight.drain(0) == 2
    assert aborted.is_set()
    assert [type(error) for error in await asyncio.gather(*both, return_exceptions=True)] == [ShuttingDown] * 2
