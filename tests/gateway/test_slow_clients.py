"""A client that stalls, trickles, resets or leaves gives back what it holds, is in the audit log, and pays."""

import asyncio
import json
import socket
import struct
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from starlette.types import Message

from cappella.auth.keys import KeyStore
from cappella.config import Audit
from cappella.gateway import http_protocol
from cappella.gateway.request import Stream, patient
from cappella.telemetry import records
from cappella.telemetry.observer import RequestObserver
from cappella.telemetry.records import RequestRecord
from support.fake_engines import FakeEngines, eventually, gateway_config, judge_script, serving
from support.recorded_gateway import ask, client, recording_config
from support.scripted_engine import Script

HEAD = (
    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    "x-api-key: {key}\r\nContent-Length: {size}\r\n\r\n"
)
LARGE = Script(pieces=("x" * 1_000_000,) * 40, ending="hang")


@asynccontextmanager
async def deaf(url: str, key: str, **fields: Any) -> AsyncIterator[socket.socket]:
    """A client that has sent a request, and reads nothing of its reply by itself."""
    loop, where = asyncio.get_running_loop(), urlsplit(url)
    body = orjson.dumps({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 90, **fields})
    with socket.socket() as found:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        found.setblocking(False)
        await loop.sock_connect(found, (where.hostname, where.port))
        await loop.sock_sendall(found, HEAD.format(key=key, size=len(body)).encode() + body)
        yield found


async def trickle(found: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    while await loop.sock_recv(found, 1024):
        await asyncio.sleep(0.05)


async def leave(found: socket.socket, way: str) -> None:
    match way:
        case "trickles":
            await trickle(found)
        case "resets":
            found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            found.close()
        case "half-closes":
            found.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("way", ["stalls", "trickles", "resets", "half-closes"])
@pytest.mark.parametrize(("model", "stream"), [("judge", True), ("judge", False), ("cappella/default", True)])
async def test_a_client_that_takes_no_more_gives_all_back_and_pays(
    fake_engines: FakeEngines, tmp_path: Path, way: str, model: str, stream: bool
) -> None:
    large = LARGE if stream else Script(pieces=LARGE.pieces)
    fake_engines.let("judge", judge_script(final=large))
    store = KeyStore(tmp_path / "keys.sqlite")
    config = gateway_config(analysis="off")
    changes = {"audit": Audit(file=tmp_path / "audit.jsonl"), "keys": tmp_path / "keys.sqlite", "client_timeout_s": 0.3}
    config = config.model_copy(update={"server": config.server.model_copy(update=changes)})
    async with serving(fake_engines, config) as url:
        admission = fake_engines.reloader.state.admission
        async with deaf(url, store.create("ann", ["run"]), model=model, stream=stream) as found:
            assert await eventually(lambda: fake_engines.servers["judge"].bodies != [], 60)
            leaving = asyncio.create_task(leave(found, way))
            assert await eventually(lambda: not admission.in_flight and fake_engines.running == 0, 60)
            leaving.cancel()
            await asyncio.wait({leaving})
        assert {engine.used for engine in admission._engines.values()} == {0}
        assert await eventually(lambda: sum(each.completion_tokens for each in store.usage().values()) > 0)
        assert next(iter(store.usage().values())).prompt_tokens > 0
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    (line,) = [line for line in lines if line["kind"] in ("run", "call")]
    assert line["status"] in (["ClientTooSlow"] if way in ("stalls", "trickles") else ["cancelled", "ClientTooSlow"])
    assert line["tokens"]["completion"] > 0


class Source:
    """Pieces of a reply, and whether they are still being generated."""

    def __init__(self) -> None:
        self.is_open = False

    async def pieces(self, size: int = 1) -> AsyncGenerator[bytes, None]:
        self.is_open = True
        try:
            while True:
                yield b"x" * size
        finally:
            self.is_open = False


async def _never() -> Message:
    never: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    return await never


async def test_a_reader_that_is_always_a_little_late_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    records.begin(RequestRecord("POST", "/x"))
    source, sent = Source(), 0

    async def send(message: Message) -> None:
        nonlocal sent
        sent += 1
        await asyncio.sleep(0.05)

    pieces = source.pieces()
    await Stream(pieces, pieces, 0.4)({"type": "http", "path": "/x"}, _never, send)
    assert not source.is_open
    assert sent > 2
    assert records.current().error == "ClientTooSlow"
    assert "less than 16 KiB a second" in caplog.text


async def test_only_a_piece_that_has_to_wait_is_timed_and_one_that_takes_too_long_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records.begin(RequestRecord("POST", "/x"))
    sent: list[Message] = []
    timed: list[float] = []
    timeout = asyncio.timeout

    def timeout_of_the_last(delay_s: float) -> asyncio.Timeout:
        timed.append(delay_s)
        return timeout(0.0 if len(sent) == 3 else None)

    monkeypatch.setattr(asyncio, "timeout", timeout_of_the_last)
    ends: list[str] = []

    async def send(message: Message) -> None:
        if len(sent) == 3:
            try:
                await _never()
            except asyncio.CancelledError:
                ends.append("cancelled")
                raise
        if len(sent) == 2:
            await asyncio.sleep(0)
        sent.append(message)

    patiently = patient({"type": "http", "path": "/x"}, send, 60.0)
    for number in range(4):
        await patiently({"type": "http.response.body", "body": b"x" * 1000, "number": number})
    assert [message["number"] for message in sent] == [0, 1, 2]
    assert (ends, len(timed)) == (["cancelled"], 2)
    assert records.current().error == "ClientTooSlow"


async def test_a_reply_that_nobody_begins_to_read_ends_its_source() -> None:
    records.begin(RequestRecord("POST", "/x"))
    source = Source()
    pieces = source.pieces()
    await anext(pieces)

    async def not_begun() -> AsyncGenerator[bytes, None]:
        async for piece in pieces:
            yield piece

    async def gone() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        await asyncio.get_running_loop().create_future()

    await Stream(not_begun(), pieces, 60)({"type": "http", "path": "/x"}, gone, send)
    assert not source.is_open


async def test_a_whole_reply_that_nobody_reads_does_not_stay(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_protocol, "STALL_S", 0.1)
    fake_engines.let("judge", judge_script(final=Script(pieces=LARGE.pieces)))
    store = KeyStore(tmp_path / "keys.sqlite")
    config = gateway_config(analysis="off")
    config = config.model_copy(update={"server": config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})})
    lost: list[object] = []
    lose = http_protocol.Connection.connection_lost

    def lost_one(self: http_protocol.Connection, error: Exception | None) -> None:
        lost.append(self)
        lose(self, error)

    monkeypatch.setattr(http_protocol.Connection, "connection_lost", lost_one)
    async with (
        serving(fake_engines, config) as url,
        deaf(url, store.create("ann", ["run"]), model="cappella/default"),
    ):
        assert await eventually(lambda: bool(lost), 60)


@pytest.mark.parametrize("model", ["ann", "cappella/default"])
async def test_a_record_that_fails_costs_the_others_nothing(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    def fail(*_: object) -> None:
        raise LookupError("visit")

    monkeypatch.setattr(RequestObserver, "call_ended", fail)
    monkeypatch.setattr(RequestObserver, "run_ended", fail)
    store = KeyStore(tmp_path / "keys.sqlite")
    key = store.create("ann", ["run"])
    config = recording_config(tmp_path, keys=tmp_path / "keys.sqlite")
    async with client(fake_engines, config, key) as http:
        assert (await ask(http, model))[0] == 200
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    assert {"run", "call"} & set(kinds)
    assert store.usage()[store.all()[0].id].completion_tokens > 0
