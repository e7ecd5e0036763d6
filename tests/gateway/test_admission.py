"""As many runs as there is room for, a bounded queue, and for the rest a refusal at once."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.config import Audit
from cappella.config.options import Gate, Seat
from cappella.errors import Overloaded, RequestError
from cappella.gateway import admission as admission_module
from cappella.gateway.admission import Admission
from cappella.gateway.costs import costs
from cappella.telemetry.recorder import Recorder
from support.fake_engines import MEMBERS, FakeEngines, busy_config, eventually, gateway_config, serving
from support.scripted_engine import Script

HEAD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n"
)
BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}


def admission(sequences: int = 8, max_waiting: int = 4) -> Admission:
    return Admission({"ann": sequences, "bob": sequences}, max_waiting)


async def hold(found: Admission, name: str, costs: dict[str, int], until: asyncio.Event, direct: bool = False) -> None:
    async with found.slot(name, costs, direct):
        await until.wait()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_runs_begin_while_there_is_room_and_queue_after_that() -> None:
    found, done = admission(), asyncio.Event()
    tasks = [asyncio.create_task(hold(found, "e", {"ann": 3}, done)) for _ in range(4)]
    await settle()
    # One of eight sequences is kept for direct calls.
    assert found.waiting == {"e": 2}
    done.set()
    await asyncio.gather(*tasks)
    assert found.waiting == {"e": 0}


async def test_a_full_queue_refuses_at_once_with_a_retry_time() -> None:
    found, done = admission(max_waiting=1), asyncio.Event()
    tasks = [asyncio.create_task(hold(found, "e", {"ann": 7}, done)) for _ in range(2)]
    await settle()
    with pytest.raises(Overloaded, match="e is overloaded: 1 requests are waiting") as caught:
        async with found.slot("e", {"ann": 1}):
            pass
    assert 1 <= caught.value.retry_after_s <= 60
    done.set()
    await asyncio.gather(*tasks)


async def test_direct_calls_do_not_wait_behind_panels() -> None:
    found, done = admission(), asyncio.Event()
    tasks = [asyncio.create_task(hold(found, "e", {"ann": 1}, done)) for _ in range(10)]
    await settle()
    async with asyncio.timeout(20), found.slot("ann", {"ann": 1}, direct=True):
        pass
    done.set()
    await asyncio.gather(*tasks)


async def test_runs_do_not_wait_behind_direct_calls() -> None:
    found, done = admission(), asyncio.Event()
    tasks = [asyncio.create_task(hold(found, "ann", {"ann": 1}, done, direct=True)) for _ in range(10)]
    await settle()
    # Two of eight sequences are kept for runs.
    assert found.in_flight == {"ann": 6}
    async with asyncio.timeout(20), found.slot("e", {"ann": 2, "bob": 1}):
        pass
    done.set()
    await asyncio.gather(*tasks)


@pytest.mark.parametrize(("sequences", "most"), [(8, 6), (4, 3)])
async def test_a_direct_call_that_would_take_the_share_of_runs_is_refused(sequences: int, most: int) -> None:
    found = admission(sequences)
    async with found.slot("ann", {"ann": most}, direct=True):
        pass
    with pytest.raises(RequestError, match=f"n may be at most {most} here") as caught:
        await hold(found, "ann", {"ann": most + 1}, asyncio.Event(), direct=True)
    assert (caught.value.param, caught.value.code) == ("n", "too_large")


async def test_an_engine_that_no_run_uses_gives_all_to_direct_calls() -> None:
    config = gateway_config(panel=["ann", "bob"])
    models = {name: model.model_copy(update={"max_num_seqs": 4}) for name, model in config.models.items()}
    found = Admission.of(config.model_copy(update={"models": models}))
    async with found.slot("cat", {"cat": 4}, direct=True):
        pass
    with pytest.raises(RequestError):
        await hold(found, "ann", {"ann": 4}, asyncio.Event(), direct=True)


async def test_small_runs_do_not_pass_a_large_one_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cappella.gateway.admission.MAX_OVERTAKING_S", 0.01)
    found = admission()
    served = asyncio.Event()

    async def keep_busy() -> None:
        while not served.is_set():
            async with found.slot("small", {"ann": 1}):
                await asyncio.sleep(0.002)

    busy = [asyncio.create_task(keep_busy()) for _ in range(4)]
    await asyncio.sleep(0.01)
    async with asyncio.timeout(20), found.slot("large", {"ann": 7, "bob": 1}):
        served.set()
    await asyncio.gather(*busy)


async def test_a_run_larger_than_the_capacity_runs_alone() -> None:
    found = admission()
    async with asyncio.timeout(20), found.slot("e", {"ann": 100}):
        assert found._engines["ann"].used == 7


async def test_an_engine_of_which_replicas_are_away_takes_what_the_others_run() -> None:
    now, done = [4], asyncio.Event()
    found = Admission({"ann": 8}, 9, max_calls={"ann": lambda: now[0]})
    tasks = [asyncio.create_task(hold(found, "e", {"ann": 2}, done)) for _ in range(3)]
    await settle()
    assert (found.held["ann"], found.waiting) == (4, {"e": 1})
    now[0] = 8
    tasks.append(asyncio.create_task(hold(found, "e", {"ann": 1}, done)))
    await settle()
    assert (found.held["ann"], found.waiting) == (7, {"e": 0})
    done.set()
    await asyncio.gather(*tasks)


async def test_requests_that_wait_begin_when_a_replica_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission_module, "LOOK_AGAIN_S", 0.01)
    now, done = [4], asyncio.Event()
    found = Admission({"ann": 8}, 9, max_calls={"ann": lambda: now[0]})
    tasks = [asyncio.create_task(hold(found, "e", {"ann": 3}, done)) for _ in range(2)]
    await settle()
    assert found.waiting == {"e": 1}
    now[0] = 8
    assert await eventually(lambda: found.waiting == {"e": 0})
    done.set()
    await asyncio.gather(*tasks)


async def test_a_request_that_the_whole_engine_could_take_runs_alone_on_what_is_left_of_it() -> None:
    now = [8]
    found = Admission({"ann": 8}, 9, max_calls={"ann": lambda: now[0]})
    async with asyncio.timeout(20):
        async with found.slot("e", {"ann": 7}):
            now[0] = 4
            # It is no mistake of the request that a replica is away.
            waiting = asyncio.create_task(hold(found, "ann", {"ann": 6}, asyncio.Event(), direct=True))
            await settle()
            assert found.waiting == {"e": 0, "ann": 1}
        await settle()
        assert found.waiting == {"e": 0, "ann": 0}
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


async def test_a_request_that_leaves_the_queue_frees_its_place() -> None:
    found, done = admission(), asyncio.Event()
    first = asyncio.create_task(hold(found, "a", {"ann": 5}, done))
    await settle()
    gone = asyncio.create_task(hold(found, "b", {"ann": 7}, done))
    await settle()
    gone.cancel()
    await asyncio.gather(gone, return_exceptions=True)
    assert found.waiting["b"] == 0
    async with asyncio.timeout(20), found.slot("b", {"ann": 2}):
        pass
    done.set()
    await first


Calls = st.tuples(
    st.sampled_from(["a", "b"]), st.integers(1, 9), st.booleans(), st.booleans(), st.sampled_from([None, "k", "l"])
)


@given(st.lists(Calls, max_size=25), st.sampled_from([2, 30]))
def test_admission_loses_no_capacity_whatever_order_requests_come_and_go(
    calls: Sequence[tuple[str, int, bool, bool, str | None]], max_waiting: int
) -> None:
    async def all_of_them() -> None:
        found = admission(max_waiting=max_waiting)

        async def one(name: str, count: int, direct: bool, gives_up: bool, key: str | None) -> None:
            task = asyncio.create_task(work(name, count, direct, key))
            if gives_up:
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled() and (error := task.exception()) is not None:
                assert isinstance(error, Overloaded)
                assert max_waiting == 2

        async def work(name: str, count: int, direct: bool, key: str | None) -> None:
            count = min(count, 6) if direct else count
            async with found.slot(name, {"ann": count, "bob": 1}, direct, key):
                assert all(engine.used <= 8 for engine in found._engines.values())
                assert all(waiting <= max_waiting for waiting in found.waiting.values())
                await asyncio.sleep(0)

        await asyncio.wait_for(asyncio.gather(*(one(*call) for call in calls)), 60)
        assert {engine.used for engine in found._engines.values()} == {0}
        assert not any(found.waiting.values())
        assert not any(engine.held for engine in found._engines.values())
        assert not found._queue.lanes

    asyncio.run(all_of_them())


@pytest.fixture
async def busy(fake_engines: FakeEngines) -> AsyncIterator[str]:
    async with serving(fake_engines, busy_config(client_timeout_s=0.3)) as url:
        yield url


@pytest.mark.parametrize("stream", [False, True])
async def test_requests_over_capacity_get_429_with_retry_after(fake_engines: FakeEngines, stream: bool) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))

    async def ask(http: aiohttp.ClientSession) -> tuple[int, str | None]:
        async with http.post(f"{url}/v1/chat/completions", json={**BODY, "stream": stream}) as reply:
            await reply.read()
            return reply.status, reply.headers.get("Retry-After")

    async with serving(fake_engines, busy_config()) as url, aiohttp.ClientSession() as http:
        calls = [asyncio.create_task(ask(http)) for _ in range(12)]
        # Two run, one waits.
        assert await eventually(lambda: sum(call.done() for call in calls) == 9)
        fake_engines.release()
        replies = await asyncio.gather(*calls)
        refused = [reply for reply in replies if reply[0] == 429]
        assert sorted(status for status, _ in replies) == [200] * 3 + [429] * 9
        assert all(retry is not None and int(retry) >= 1 for _, retry in refused)
        async with http.get(f"{url}/metrics") as reply:
            text = await reply.text()
        assert 'cappella_waiting{name="cappella/default"} 0.0' in text
        assert f'cappella_queue_refused_total{{name="cappella/default"}} {len(refused)}.0' in text
        assert f'cappella_queue_seconds_count{{name="cappella/default"}} {len(replies) - len(refused)}.0' in text
        assert f'path="/v1/chat/completions",status_code="429"}} {len(refused)}.0' in text


@pytest.mark.parametrize("stream", [False, True])
async def test_a_deadline_passes_in_the_queue_too(fake_engines: FakeEngines, stream: bool) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))

    async def ask(http: aiohttp.ClientSession, **fusion: float) -> tuple[int, str]:
        body = {**BODY, "stream": stream, "fusion": fusion}
        async with http.post(f"{url}/v1/chat/completions", json=body) as reply:
            return reply.status, await reply.text()

    async with serving(fake_engines, busy_config()) as url, aiohttp.ClientSession() as http:
        admission = fake_engines.reloader.state.admission
        running = [asyncio.create_task(ask(http)) for _ in range(2)]
        assert await eventually(lambda: admission.in_flight == {"cappella/default": 2})
        status, text = await ask(http, deadline_seconds=0.2)
        # A stream has begun by then, if its deadline is later than that.
        assert (status, "deadline_exceeded" in text) == (504, True)
        assert admission.waiting["cappella/default"] == 0
        fake_engines.release()
        assert [status for status, _ in await asyncio.gather(*running)] == [200, 200]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/api/chat"])
async def test_a_direct_call_has_a_deadline_in_the_queue(fake_engines: FakeEngines, path: str) -> None:
    body = {**BODY, "model": "ann", "max_tokens": 5}
    async with serving(fake_engines, busy_config(max_queue_s=0.2)) as url, aiohttp.ClientSession() as http:
        admission = fake_engines.reloader.state.admission
        async with admission.slot("other", {"ann": 2}):
            async with http.post(url + path, json=body) as reply:
                assert (reply.status, "server.max_queue_s" in await reply.text()) == (504, True)
            assert admission.waiting["ann"] == 0
        async with http.post(url + path, json=body) as reply:
            assert reply.status == 200
    assert len(fake_engines.servers["ann"].bodies) == 1


async def test_a_run_has_what_the_queue_left_of_its_deadline(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    left: list[float] = []
    run = Recorder.run

    async def recorded(self: Recorder, *arguments: Any) -> Any:
        left.append(arguments[3].deadline_s)
        return await run(self, *arguments)

    monkeypatch.setattr(Recorder, "run", recorded)
    async with serving(fake_engines, busy_config()) as url, aiohttp.ClientSession() as http:
        admission = fake_engines.reloader.state.admission
        body = {**BODY, "fusion": {"deadline_seconds": 50}}
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(admission.slot("other", {"ann": 2}))
            asked = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=body))
            assert await eventually(lambda: admission.waiting.get("cappella/default") == 1)
            await asyncio.sleep(0.1)
        assert (await asked).status == 200
    assert 0 < left[0] <= 49.9


async def test_a_request_whose_body_never_arrives_gets_408(busy: str) -> None:
    parts = urlsplit(busy)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    writer.write(HEAD % 100 + b"{")
    head = await asyncio.wait_for(reader.readline(), 20)
    assert b"408" in head
    writer.close()


@pytest.mark.parametrize("model", ["cappella/default", "judge"])
async def test_a_client_that_does_not_read_is_dropped_with_a_logged_reason(
    fake_engines: FakeEngines, tmp_path: Path, caplog: pytest.LogCaptureFixture, model: str
) -> None:
    fake_engines.servers["judge"].script = lambda body: Script(pieces=("x" * 1_000_000,) * 40, ending="hang")
    async with AsyncExitStack() as stack:
        audit = Audit(file=tmp_path / "audit.jsonl")
        parts = urlsplit(
            await stack.enter_async_context(serving(fake_engines, busy_config(client_timeout_s=0.3, audit=audit)))
        )
        client = stack.enter_context(socket.socket())
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await asyncio.get_running_loop().sock_connect(client, (parts.hostname, parts.port))
        body = orjson.dumps({**BODY, "model": model, "stream": True})
        await asyncio.get_running_loop().sock_sendall(client, HEAD % len(body) + body)
        assert await eventually(lambda: fake_engines.servers["judge"].running == 1, 60)
        assert await eventually(lambda: fake_engines.running == 0 and "its connection was closed" in caplog.text, 60)
        # Its connection is gone, too, with what was still to be sent.
        received = 0
        async with asyncio.timeout(60):
            while data := await asyncio.get_running_loop().sock_recv(client, 1 << 20):
                received += len(data)
        assert received < 10_000_000
    (line,) = (tmp_path / "audit.jsonl").read_text().splitlines()[-1:]
    assert json.loads(line)["status"] == "ClientTooSlow"
    told = [record.getMessage() for record in caplog.records if "digest" not in record.getMessage()]
    assert told == ["/v1/chat/completions: the client read nothing for 0.3 s; its connection was closed"]


def test_a_run_needs_a_sequence_of_its_gates_model_too() -> None:
    seats = (Seat("ann", "ann"), Seat("bob", "bob"))
    hosts = {name: name for name in (*MEMBERS, "judge")}
    settings = FakeEngines().settings(panel=seats, gate=Gate("judge", "cat", 4))
    assert costs(settings, hosts) == {"ann": 1, "bob": 1, "judge": 1, "cat": 1}
    assert costs(settings.model_copy(update={"gate": Gate("judge", "ann", 4)}), hosts) == {
        "ann": 1,
        "bob": 1,
        "judge": 1,
    }


def test_a_run_that_chooses_in_several_orders_needs_a_sequence_of_its_judge_for_each_at_a_time() -> None:
    seats = tuple(Seat(f"ann#{i}", "ann") for i in range(6))
    hosts = {name: name for name in (*MEMBERS, "judge")}
    for panel, judge in ((seats, 4), (seats[:3], 3)):
        settings = FakeEngines().settings(panel=panel, debias=True, strategy="select")
        assert costs(settings, hosts) == {"ann": len(panel), "judge": judge}
    assert costs(settings.model_copy(update={"strategy": "synthesize"}), hosts) == {"ann": 3, "judge": 1}


async def test_a_run_waits_for_the_judge_that_is_up(fake_engines: FakeEngines) -> None:
    fake_engines.engines["judge"].status.state = "failed"
    found = busy_config()
    default = gateway_config(panel=["ann", "bob"], judge=["judge", "cat"], analysis="off").ensembles["default"]
    config = found.model_copy(update={"ensembles": {"default": default}})
    async with serving(fake_engines, config) as url, aiohttp.ClientSession() as http:
        admission = fake_engines.reloader.state.admission
        async with admission.slot("others", {"cat": 2}):
            run = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json=BODY))
            assert await eventually(lambda: admission.waiting.get("cappella/default") == 1)
        async with await run as reply:
            assert (reply.status, (await reply.json())["fusion"]["judge_model"]) == (200, "cat")
