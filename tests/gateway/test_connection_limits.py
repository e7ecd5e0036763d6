"""Connections are bounded in number, and in age once their request has been answered; bodies in memory."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from cappella.config import Config, Server
from cappella.ensemble import stream
from cappella.gateway import http_protocol, lingering
from cappella.gateway.connection_limits import ConnectionLimits
from support.fake_engines import FakeEngines, busy_config, eventually, gateway_config, serving
from support.scripted_engine import Script

HEALTH = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
ASK = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}


def bounded(**server: Any) -> Config:
    config = gateway_config(analysis="off")
    return config.model_copy(update={"server": config.server.model_copy(update=server)})


@asynccontextmanager
async def connected(url: str, first: bytes = b"") -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    writer.write(first)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (HEALTH + b"Content-Length: 1000000000\r\n\r\nx", 200),
        (HEALTH.replace(b"health", b"nowhere") + b"Content-Length: 9\r\n\r\nx", 404),
        (ASK + b"Transfer-Encoding: chunked\r\n\r\n40000\r\n" + b"x" * 250_000, 413),
        (ASK.replace(b"application/json", b"text/html") + b"Content-Length: 9\r\n\r\n{", 415),
    ],
)
async def test_a_request_that_is_answered_before_it_is_whole_is_its_connections_last(
    gateway: str, monkeypatch: pytest.MonkeyPatch, first: bytes, status: int
) -> None:
    monkeypatch.setattr(lingering, "LINGER_S", 0.5)
    async with connected(gateway, first) as (reader, writer), asyncio.timeout(30):
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head.lower()
        with pytest.raises(ConnectionError):
            await _send_for_ever(writer)


async def _send_for_ever(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x")
        await writer.drain()
        await asyncio.sleep(0.01)


async def test_a_client_that_is_still_sending_reads_why_it_was_refused(gateway: str) -> None:
    async with connected(gateway, ASK + b"Content-Length: 8000000\r\n\r\n") as (reader, writer), asyncio.timeout(30):
        for _ in range(80):
            writer.write(b"x" * 50_000)
            await writer.drain()
        reply = await reader.read()
    assert b"body_too_large" in reply


async def test_a_whole_request_keeps_its_connection(gateway: str) -> None:
    async with connected(gateway, HEALTH + b"\r\n") as (reader, writer), asyncio.timeout(30):
        for _ in range(3):
            assert b"connection: close" not in (await reader.readuntil(b"\r\n\r\n")).lower()
            writer.write(HEALTH + b"Content-Length: 1\r\n\r\nx")


async def test_blank_lines_keep_no_connection(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "HEAD_TIMEOUT_S", 0.3)
    async with connected(gateway, HEALTH + b"\r\n") as (reader, writer), asyncio.timeout(30):
        await reader.readuntil(b"\r\n\r\n")
        ended = asyncio.create_task(reader.read())
        while not ended.done():
            writer.write(b"\r\n")
            await asyncio.sleep(0.05)
        await asyncio.wait({ended})


async def test_an_idle_connection_makes_room_and_a_busy_one_does_not(fake_engines: FakeEngines) -> None:
    fake_engines.let("ann", Script(ending="held"))
    ask = b'{"model": "ann", "stream": true, "messages": [{"role": "user", "content": "Hi"}]}'
    async with (
        serving(fake_engines, bounded(max_connections=2)) as url,
        connected(url, ASK + b"Content-Length: %d\r\n\r\n" % len(ask) + ask) as (busy, _),
        connected(url) as (idle, _),
        asyncio.timeout(30),
    ):
        await busy.readuntil(b"Hello")
        async with connected(url, ASK + b"Content-Length: %d\r\n\r\n" % len(ask) + ask) as (third, _):
            assert await idle.read() == b""
            await third.readuntil(b"Hello")
            async with connected(url, HEALTH + b"\r\n") as (fourth, _):
                assert (await fourth.readline()).startswith(b"HTTP/1.1 503 ")
        assert await eventually(lambda: fake_engines.running == 1)
        async with connected(url, HEALTH + b"\r\n") as (fifth, _):
            assert (await fifth.readline()).startswith(b"HTTP/1.1 200 ")
        async with connected(url, b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n") as (sixth, _):
            await sixth.readuntil(b'cappella_refused_connections_total{limit="all"} 1.0')
        fake_engines.release()


@dataclass(eq=False)
class Idle:
    """A connection without a request."""

    is_idle: bool = True
    closed: list[bool] = field(default_factory=list)

    @property
    def transport(self) -> Any:
        return self

    def close(self) -> None:
        self.closed.append(True)


@pytest.mark.parametrize(
    ("hosts", "admitted"),
    [
        (["10.0.0.1"] * 3 + ["10.0.0.2"], [True, True, False, True]),
        (["127.0.0.1"] * 3 + ["::1", "::ffff:127.0.0.1", ""], [True] * 6),
        (["::ffff:10.0.0.1", "10.0.0.1", "10.0.0.1"], [True, True, False]),
        (["2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"], [True, True, False, True]),
        (["fe80::1%eth0", "fe80::2%eth0", "fe80::3%eth0"], [True, True, False]),
    ],
)
def test_one_address_has_its_bound_and_loopback_has_none(hosts: list[str], admitted: list[bool]) -> None:
    limits = ConnectionLimits(max_in_all=8, max_per_address=2)
    assert [limits.admit(Idle(), host) for host in hosts] == admitted


def test_a_closed_connection_leaves_its_place_to_another() -> None:
    limits, first = ConnectionLimits(max_in_all=8, max_per_address=1), Idle()
    assert limits.admit(first, "10.0.0.1")
    refused = Idle()
    assert not limits.admit(refused, "10.0.0.1")
    limits.forget(refused)
    assert not limits.admit(refused, "10.0.0.1")
    limits.forget(first)
    assert limits.admit(refused, "10.0.0.1")


def test_a_server_takes_as_many_files_as_it_may() -> None:
    code = "from cappella.gateway.http_server import raise_file_limit as r; import resource as s;"
    code += "s.setrlimit(s.RLIMIT_NOFILE, (200, 900)); print(r(), *s.getrlimit(s.RLIMIT_NOFILE), r())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["900", "900", "900", "900"]


async def test_bodies_that_wait_are_bounded_and_leave_others_their_half(fake_engines: FakeEngines) -> None:
    server = {"max_body_bytes": 100_000, "max_waiting_bytes": 400_000}
    unfinished = ASK + b"Content-Length: 90000\r\n\r\n" + b" " * 80_000

    async def ask(http: aiohttp.ClientSession) -> tuple[int, str | None, str]:
        async with http.post(f"{url}/v1/chat/completions", json={**BODY, "user": "u" * 50_000}) as reply:
            return reply.status, reply.headers.get("Retry-After"), await reply.text()

    async with serving(fake_engines, bounded(**server)) as url, aiohttp.ClientSession() as http:
        bodies = fake_engines.reloader.state.bodies
        async with connected(url, unfinished), connected(url, unfinished):
            assert await eventually(lambda: bodies.held == 160_000)
            status, retry_after, text = await ask(http)
            assert (status, retry_after, '"overloaded"' in text) == (503, "5", True)
        assert await eventually(lambda: bodies.held == 0)
        assert (await ask(http))[0] == 200


@pytest.mark.parametrize("model", ["ann", "cappella/default"])
async def test_bodies_of_streams_that_wait_are_bounded_too(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    monkeypatch.setattr(stream, "EARLY_FAILURE_S", 0.0)
    config = busy_config(max_waiting=9, max_body_bytes=100_000, max_waiting_bytes=400_000)
    asked = {**BODY, "model": model, "stream": True, "user": "u" * 80_000}
    async with serving(fake_engines, config) as url, aiohttp.ClientSession() as http, AsyncExitStack() as stack:
        admission = fake_engines.reloader.state.admission
        await stack.enter_async_context(admission.slot("others", dict.fromkeys(fake_engines.engines, 2)))
        for status in (200, 200, 503):
            reply = await stack.enter_async_context(http.post(f"{url}/v1/chat/completions", json=asked))
            assert reply.status == status
        assert '"overloaded"' in await reply.text()


async def test_a_request_that_is_admitted_holds_no_body(fake_engines: FakeEngines) -> None:
    for name in fake_engines.servers:
        fake_engines.let(name, Script(ending="held"))
    async with serving(fake_engines, bounded()) as url, aiohttp.ClientSession() as http:
        bodies = fake_engines.reloader.state.bodies
        for model in ("ann", "cappella/default"):
            asked = asyncio.create_task(http.post(f"{url}/v1/chat/completions", json={**BODY, "model": model}))
            assert await eventually(lambda: fake_engines.running > 0 and bodies.held == 0)
            asked.cancel()
            await asyncio.wait({asked})
            assert await eventually(lambda: fake_engines.running == 0)


def test_waiting_bodies_have_room_for_two_of_the_largest() -> None:
    assert Server(max_body_bytes="1GiB").waiting_bytes == 4 << 30  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_waiting_bytes must be twice max_body_bytes"):
        Server.model_validate({"max_body_bytes": "4MiB", "max_waiting_bytes": "7MiB"})
