"""Streams of responses in the background, as the stock client reads them: left, taken up again, and read long after."""

import asyncio
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from cappella.auth.keys import KeyStore
from cappella.gateway import event_log
from cappella.gateway.formats import sse
from cappella.telemetry.response_store import ResponseStore, StoredResponse
from cappella.telemetry.run_store import RunStore
from support.fake_engines import MEMBERS, FakeEngines, eventually, judge_script, serving
from support.kept_gateway import ask, client, ended, hold, keeping, kept
from support.scripted_engine import Script

LONG = tuple(f"word{number} " for number in range(300))


@pytest.fixture
async def stock(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    async with kept(fake_engines, tmp_path) as stock:
        yield stock


async def begin(stock: AsyncOpenAI, **more: Any) -> Any:
    return await ask(stock, background=True, stream=True, **more)


async def again(stock: AsyncOpenAI, response_id: str, after: int | None = None) -> list[Any]:
    more: Any = {} if after is None else {"starting_after": after}
    return [event async for event in await stock.responses.retrieve(response_id, stream=True, **more)]


def plain(events: list[Any]) -> list[Any]:
    return [event.to_dict(warnings=False) for event in events]


async def test_a_background_stream_is_queued_begins_and_ends(stock: AsyncOpenAI) -> None:
    events = [event async for event in await begin(stock)]
    kinds = [event.type for event in events]
    assert kinds[:3] == ["response.created", "response.queued", "response.in_progress"]
    assert [event.response.status for event in events[:3]] == ["queued", "queued", "in_progress"]
    assert kinds[-1] == "response.completed"
    assert [event.sequence_number for event in events] == list(range(len(events)))
    last = events[-1].response
    assert (last.background, last.output_text) == (True, "The final answer")
    assert len({event.response.created_at for event in events if hasattr(event, "response")}) == 1
    assert (await stock.responses.retrieve(last.id)).to_dict() == last.to_dict()


async def test_the_stream_of_an_ended_response_is_replayed_from_any_event_on(stock: AsyncOpenAI) -> None:
    events = plain([event async for event in await begin(stock, extra_body={"fusion": {"include_events": True}})])
    response_id = events[0]["response"]["id"]
    assert plain(await again(stock, response_id)) == events
    for after in (0, 3, len(events) - 2):
        assert plain(await again(stock, response_id, after)) == events[after + 1 :]
    for beyond in (len(events) - 1, len(events), 10_000):
        assert await again(stock, response_id, beyond) == []


async def test_a_client_that_left_takes_the_stream_up_again_while_it_goes_on(
    fake_engines: FakeEngines, stock: AsyncOpenAI
) -> None:
    pace = asyncio.Semaphore(0)
    fake_engines.let("judge", judge_script(Script(("a", "b", "c", "d"), pace=pace)))
    stream = await begin(stock, extra_body={"fusion": {"analysis": "off"}})
    seen: list[Any] = []
    async for event in stream:
        seen.append(event)
        if event.type == "response.in_progress":
            pace.release()
        if event.type == "response.output_text.delta":
            break
    await stream.close()
    response_id = seen[0].response.id
    live = await stock.responses.retrieve(response_id, stream=True, starting_after=seen[-1].sequence_number)
    late = asyncio.create_task(again(stock, response_id))
    for _ in range(3):
        pace.release()
    seen += [event async for event in live]
    assert [event.sequence_number for event in seen] == list(range(len(seen)))
    assert "".join(event.delta for event in seen if event.type == "response.output_text.delta") == "abcd"
    assert seen[-1].response.output_text == "abcd"
    assert plain(await late) == plain(seen) == plain(await again(stock, response_id))


async def test_it_is_there_after_a_restart_and_gone_once_it_is_deleted(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with kept(fake_engines, tmp_path) as stock:
        events = plain([event async for event in await begin(stock)])
        response_id = events[0]["response"]["id"]
    async with kept(fake_engines, tmp_path) as stock:
        assert plain(await again(stock, response_id, 2)) == events[3:]
        await stock.responses.delete(response_id)
        with pytest.raises(openai.NotFoundError):
            await again(stock, response_id)
    store = RunStore(tmp_path / "runs.sqlite", 1)
    assert await store.call(lambda db: db.execute("SELECT count(*) FROM response_events").fetchone()) == (0,)
    store.close()


@pytest.mark.parametrize("chunk_bytes", [1, 3000])
async def test_little_of_a_long_stream_is_in_memory_and_all_of_it_is_read(
    fake_engines: FakeEngines, stock: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch, chunk_bytes: int
) -> None:
    monkeypatch.setattr(event_log, "CHUNK_BYTES", chunk_bytes)
    fake_engines.let("judge", judge_script(Script(LONG)))
    held: list[int] = []
    add = event_log.EventLog.add

    def measured(self: event_log.EventLog, frames: Any) -> None:
        add(self, frames)
        held.append(self._latest_bytes)

    monkeypatch.setattr(event_log.EventLog, "add", measured)
    events = [event async for event in await begin(stock)]
    response_id = events[0].response.id
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == "".join(LONG)
    assert plain(await again(stock, response_id, 100)) == plain(events)[101:]
    assert max(held) < chunk_bytes


async def test_what_is_stored_of_one_stream_is_bounded_and_its_items_are_whole(
    fake_engines: FakeEngines, stock: AsyncOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_log, "CHUNK_BYTES", 3000)
    monkeypatch.setattr(event_log, "MAX_BYTES", 20_000)
    fake_engines.let("judge", judge_script(Script(LONG)))
    live = [event async for event in await begin(stock)]
    replayed = await again(stock, live[0].response.id)
    assert 0 < sum(event.type == "response.output_text.delta" for event in replayed) < len(LONG)
    assert {event.type for event in live} == {event.type for event in replayed}
    (done,) = [event.text for event in replayed if event.type == "response.output_text.done"]
    assert done == replayed[-1].response.output_text == "".join(LONG)
    numbers = [event.sequence_number for event in replayed]
    assert numbers == sorted(numbers)
    assert replayed[-1].sequence_number == live[-1].sequence_number


async def test_one_that_is_cancelled_ends_its_stream_and_says_so_for_ever(
    fake_engines: FakeEngines, stock: AsyncOpenAI
) -> None:
    hold(fake_engines)
    stream = await begin(stock)
    seen = [await anext(stream) for _ in range(3)]
    response_id = seen[0].response.id
    assert (await stock.responses.cancel(response_id)).status == "cancelled"
    rest = plain([event async for event in stream])
    assert [(event["type"], event["response"]["status"]) for event in rest] == [("response.cancelled", "cancelled")]
    assert plain(await again(stock, response_id, 2)) == rest
    assert await again(stock, response_id, rest[0]["sequence_number"]) == []


async def test_one_that_fails_ends_with_its_error(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="break"))
    events = [event async for event in await begin(stock)]
    assert (events[-1].type, events[-1].response.error.code) == ("response.failed", "insufficient_quorum")
    assert plain(await again(stock, events[0].response.id)) == plain(events)
    assert (await stock.responses.retrieve(events[0].response.id)).status == "failed"


async def test_what_a_killed_server_had_sent_is_replayed_up_to_its_failure(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with kept(fake_engines, tmp_path) as stock:
        events = plain([event async for event in await begin(stock)])
        response_id = events[0]["response"]["id"]
    store = RunStore(tmp_path / "runs.sqlite", 1)
    await store.call(lambda db: db.execute("UPDATE responses SET status = 'in_progress'"))
    cut = zlib.compress(sse.frame({"type": "response.in_progress", "sequence_number": 0}, "response.in_progress"))
    await store.call(lambda db: db.execute("UPDATE response_events SET first = 0, last = 0, events = ?", (cut,)))
    store.close()
    async with kept(fake_engines, tmp_path) as stock:
        replayed = plain(await again(stock, response_id))
    assert [event["type"] for event in replayed] == ["response.in_progress", "response.failed"]
    assert replayed[-1]["sequence_number"] == 1
    assert "restarted" in replayed[-1]["response"]["error"]["message"]


async def test_only_a_background_stream_can_be_resumed(stock: AsyncOpenAI) -> None:
    polled = await ask(stock, background=True)
    await ended(stock, polled.id)
    streamed = [event async for event in await ask(stock, stream=True)]
    for response_id in (polled.id, streamed[0].response.id):
        with pytest.raises(openai.BadRequestError, match="stream: true") as raised:
            await again(stock, response_id)
        assert raised.value.param == "stream"
    with pytest.raises(openai.NotFoundError):
        await again(stock, "resp_1")


@pytest.mark.parametrize("after", ["-1", "1.5", "x", "\u0661", "9" * 30])
async def test_a_number_that_is_none_is_refused(stock: AsyncOpenAI, after: Any) -> None:
    events = [event async for event in await begin(stock)]
    with pytest.raises(openai.BadRequestError) as raised:
        await again(stock, events[0].response.id, after)
    assert raised.value.param == "starting_after"


async def test_a_silence_is_kept_alive(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "KEEP_ALIVE_S", 0.01)
    hold(fake_engines)
    async with serving(fake_engines, keeping(tmp_path)) as url, client(url) as stock:
        lines = (await begin(stock)).response.aiter_lines()
        got: list[str] = []
        async for line in lines:
            got.append(line)
            if got.count(": keep-alive") == 3:
                fake_engines.release()
    assert "event: response.completed" in got


async def test_a_key_resumes_its_own_streams_only(fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    own, other = keys.create("own", ["run"]), keys.create("other", ["run"])
    config = keeping(tmp_path)
    config = config.model_copy(update={"server": config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})})
    async with serving(fake_engines, config) as url, client(url, own) as stock, client(url, other) as stranger:
        events = [event async for event in await begin(stock)]
        with pytest.raises(openai.NotFoundError):
            await again(stranger, events[0].response.id)


async def test_a_reader_that_leaves_costs_the_run_nothing(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    hold(fake_engines)
    stream = await begin(stock)
    response_id = (await anext(stream)).response.id
    await stream.close()
    assert await eventually(lambda: fake_engines.running == len(MEMBERS))
    fake_engines.release()
    assert (await ended(stock, response_id)).status == "completed"
    assert (await again(stock, response_id))[-1].type == "response.completed"


@pytest.mark.parametrize("change", ["the file fails", "it is deleted"])
async def test_a_reader_whose_events_are_gone_gets_an_end(
    fake_engines: FakeEngines, stock: AsyncOpenAI, tmp_path: Path, change: str
) -> None:
    hold(fake_engines)
    stream = await begin(stock)
    seen = [await anext(stream) for _ in range(3)]
    if change == "it is deleted":
        await stock.responses.delete(seen[0].response.id)
        assert [event async for event in stream] == []
        return
    store = RunStore(tmp_path / "runs.sqlite", 1)
    await store.call(lambda db: db.execute("ALTER TABLE response_events RENAME TO away"))
    store.close()
    await stock.responses.cancel(seen[0].response.id)
    (last,) = [event async for event in stream]
    assert (last.type, last.code) == ("error", "runs_unavailable")


async def test_a_reader_of_a_whole_stream_needs_no_file(
    fake_engines: FakeEngines, stock: AsyncOpenAI, tmp_path: Path
) -> None:
    hold(fake_engines)
    stream = await begin(stock)
    await anext(stream)
    store = RunStore(tmp_path / "runs.sqlite", 1)
    await store.call(lambda db: db.execute("ALTER TABLE response_events RENAME TO away"))
    store.close()
    fake_engines.release()
    assert [event.type async for event in stream][-1] == "response.completed"


async def test_events_that_are_stored_while_a_reader_looks_for_dropped_ones_are_not_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def event(kind: str, number: int) -> bytes:
        return sse.frame({"type": kind, "sequence_number": number}, kind)

    monkeypatch.setattr(event_log, "CHUNK_BYTES", 1)
    monkeypatch.setattr(event_log, "MAX_BYTES", -1)
    runs = RunStore(tmp_path / "runs.sqlite", 1)
    store = ResponseStore(runs)
    await store.create(lambda: StoredResponse("resp_1", None, 0.0, "queued", [], {}))
    log = event_log.EventLog("resp_1", store)
    log.add([event("a.delta", 0)])
    reader = log.frames(0)
    first = asyncio.ensure_future(anext(reader))
    await asyncio.sleep(0)
    log.add([event("a.done", 1)])
    log.close()
    assert await first == event("a.done", 1)
    assert [data async for data in reader] == []
    runs.close()
