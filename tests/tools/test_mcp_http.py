"""MCP servers that run already, over streamable HTTP."""

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx2
import pytest
from aiohttp import web

from cappella.config import UrlTool
from cappella.tools.base import STARTING
from cappella.tools.mcp import http, unasked
from cappella.tools.mcp.server import McpServer, from_url
from support import mcp_sdk_server
from support.tool_server import QUICK_S, serves, until

KEY = "the-key-of-the-server"


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@asynccontextmanager
async def serving(port: int) -> AsyncIterator[None]:
    """The server, as a process of its own."""
    process = await asyncio.create_subprocess_exec(sys.executable, mcp_sdk_server.__file__, str(port), KEY)
    try:
        yield
    finally:
        process.kill()
        await process.wait()


@asynccontextmanager
async def attached(
    port: int, folder: Path, key: str = KEY, delays_s: Sequence[float] = QUICK_S
) -> AsyncIterator[McpServer]:
    """A client of the server under supervision."""
    file = folder / "key"
    file.write_text(f"{key}\n")
    server = from_url("far", UrlTool(url=f"http://127.0.0.1:{port}/mcp", key_file=file), delays_s)
    await server.start()
    try:
        yield server
    finally:
        await server.stop()


async def test_a_server_that_runs_already_is_listed_and_called_with_its_key(tmp_path: Path, port: int) -> None:
    async with serving(port), attached(port, tmp_path) as far:
        await serves(far)
        assert [tool.name for tool in far.tools] == ["add", "big"]
        result = await far.call("add", {"a": 2, "b": 3})
        assert (result.text, result.is_error) == ("5", False)


async def test_a_wrong_key_is_a_problem(tmp_path: Path, port: int) -> None:
    async with serving(port), attached(port, tmp_path, "another") as far:
        await until(lambda: "it did not greet" in str(far.problem))
        assert far.tools == ()


async def test_a_server_that_does_not_run_yet_is_found_when_it_does(tmp_path: Path, port: int) -> None:
    async with attached(port, tmp_path) as far:
        await until(lambda: far.problem not in (None, STARTING))
        async with serving(port):
            await serves(far)


async def test_a_server_that_ends_and_comes_back_is_attached_again(tmp_path: Path, port: int) -> None:
    async with attached(port, tmp_path) as far:
        async with serving(port):
            await serves(far)
        assert (await far.call("add", {"a": 2, "b": 3})).is_error
        await until(lambda: far.problem is not None)
        async with serving(port):
            await serves(far)
            assert (await far.call("add", {"a": 2, "b": 3})).text == "5"


async def test_a_reply_that_is_too_large_is_broken_off(tmp_path: Path, port: int) -> None:
    async with serving(port), attached(port, tmp_path) as far:
        await serves(far)
        result = await far.call("big", {})
        assert result.is_error
        assert len(result.text) < 1000


async def test_a_compressed_reply_is_refused_unread(port: int) -> None:
    asked: list[bytes] = []

    async def reply(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(reply, "127.0.0.1", port),
        httpx2.AsyncClient(transport=http._Bounded(), headers=http._headers(UrlTool(url="http://x"))) as client,
    ):
        with pytest.raises(httpx2.ReadError, match="compressed"):
            await client.get(f"http://127.0.0.1:{port}/")
    assert b"accept-encoding: identity" in asked[0].lower()


@asynccontextmanager
async def chattering(port: int, text: str) -> AsyncIterator[None]:
    """A server of no tools that sends notifications with this text as long as it is heard."""

    async def answer(request: web.Request) -> web.StreamResponse:
        asked = await request.json()
        if "id" not in asked:
            return web.Response(status=202)
        given = {"name": "s", "version": "1"}
        version = (asked.get("params") or {}).get("protocolVersion", "2025-06-18")
        result = {"protocolVersion": version, "capabilities": {"tools": {}}, "serverInfo": given, "tools": []}
        head = {"Mcp-Session-Id": "1"}
        return web.json_response({"jsonrpc": "2.0", "id": asked["id"], "result": result}, headers=head)

    async def chatter(request: web.Request) -> web.StreamResponse:
        stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await stream.prepare(request)
        said = {"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": text}}
        with suppress(ConnectionError):
            while True:
                await stream.write(f"event: message\ndata: {json.dumps(said)}\n\n".encode())
                # A write that finds room does not let anybody else run.
                await asyncio.sleep(0)
        return stream

    async def end(_: web.Request) -> web.StreamResponse:
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/mcp", answer), web.get("/mcp", chatter, allow_head=False), web.delete("/mcp", end)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port).start()
        yield
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(("limit", "text"), [("100 messages", "x"), ("1 MiB", "x" * 100_000)])
async def test_a_server_that_sends_without_end_what_nobody_asked_for_is_given_up(
    tmp_path: Path, port: int, monkeypatch: pytest.MonkeyPatch, limit: str, text: str
) -> None:
    monkeypatch.setattr(unasked, "MAX_UNASKED", 100)
    monkeypatch.setattr(unasked, "MAX_UNASKED_BYTES", 1 << 20)
    async with chattering(port, text), attached(port, tmp_path, delays_s=(60.0,)) as far:
        await until(lambda: f"it sent more than {limit} that answer nothing" in str(far.problem))
