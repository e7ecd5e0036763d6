"""`/mcp` over HTTP, with the client of the official SDK."""

import asyncio
import json
import logging
import socket
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Config
from cappella.gateway.mcp.loopback import Loopback
from support.fake_engines import JSON, MEMBERS, FakeEngines, eventually, gateway_config, judge_script, serving
from support.recorded_gateway import recording_config
from support.scripted_engine import Json, Script
from support.strict_gateway import with_keys

LIST: Json = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {**JSON, "Accept": "application/json, text/event-stream"}


@asynccontextmanager
async def agent(url: str, key: str = "", mode: str = "legacy") -> AsyncIterator[Any]:
    """A client; `legacy` begins with a handshake, as all did until the protocol of 2026."""
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with httpx2.AsyncClient(headers=headers, timeout=60) as http:
        transport = streamable_http_client(f"{url}/mcp", http_client=http)
        async with Client(transport, mode=mode, read_timeout_seconds=60) as client:
            yield client


def text_of(result: Any) -> str:
    from mcp.types import TextContent

    return "\n".join(each.text for each in result.content if isinstance(each, TextContent))


async def post(url: str, body: Any, **headers: str) -> tuple[int, str]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    async with (
        aiohttp.ClientSession() as http,
        http.post(f"{url}/mcp", data=data, headers={**ACCEPT, **headers}) as reply,
    ):
        return reply.status, await reply.text()


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_the_panel_answers_and_its_progress_is_told(gateway: str, fake_engines: FakeEngines, mode: str) -> None:
    told: list[str | None] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        told.append(message)

    async with agent(gateway, mode=mode) as client:
        tools = (await client.list_tools()).tools
        result = await client.call_tool("ask_panel", {"question": "Is it so?"}, progress_callback=note)
    assert {tool.name for tool in tools} == {"ask_panel", "compare", "list_models"}
    assert (result.is_error, text_of(result)) == (False, "The final answer")
    assert told[-1] == "the answer is being written"
    assert fake_engines.servers["ann"].bodies[0]["messages"] == [{"role": "user", "content": "Is it so?"}]


async def test_a_comparison_and_the_list_are_those_of_the_command(gateway: str, fake_engines: FakeEngines) -> None:
    fake_engines.let("cat", Script(ending="break"))
    async with agent(gateway) as client:
        compared = text_of(await client.call_tool("compare", {"question": "Who?"}))
        listed = text_of(await client.call_tool("list_models", {}))
    assert "## ann\nHello there" in compared
    assert "## cat failed" in compared
    assert "cappella/default: panel ann, bob, cat; judge judge" in listed


async def test_the_default_is_an_ensemble_that_exists(fake_engines: FakeEngines) -> None:
    config = gateway_config()
    kept = {"tools": config.ensembles["tools"]}
    async with serving(fake_engines, config.model_copy(update={"ensembles": kept})) as url, agent(url) as client:
        result = await client.call_tool("ask_panel", {"question": "Hi"})
    assert result.structured_content
    assert result.structured_content["model"] == "cappella/tools"


@pytest.mark.parametrize(
    ("tool", "arguments", "part"),
    [
        ("ask_panel", {"question": "Hi", "model": "cappella/nobody"}, "nobody"),
        ("compare", {"question": "Hi", "model": "ann"}, "ensembles"),
        ("ask_panel", {}, "question"),
    ],
)
async def test_a_mistake_is_told_to_the_agent(gateway: str, tool: str, arguments: Json, part: str) -> None:
    async with agent(gateway) as client:
        result = await client.call_tool(tool, arguments)
    assert (result.is_error, part in text_of(result)) == (True, True)


async def test_a_panel_that_fails_is_an_error_with_its_reason(gateway: str, fake_engines: FakeEngines) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="break"))
    async with agent(gateway) as client:
        result = await client.call_tool("ask_panel", {"question": "Hi"})
    assert (result.is_error, "0 of 3 members answered" in text_of(result)) == (True, True)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_call_that_the_agent_cancels_or_leaves_frees_the_engines(
    gateway: str, fake_engines: FakeEngines, mode: str
) -> None:
    for name in MEMBERS:
        fake_engines.let(name, Script(ending="held"))
    async with agent(gateway, mode=mode) as client:
        call = asyncio.create_task(client.call_tool("ask_panel", {"question": "Hi"}))
        assert await eventually(lambda: fake_engines.running == len(MEMBERS))
        call.cancel()
        # Without sessions, a notification of an older client cannot be matched to its call: the end of its connection is.
        if mode == "auto":
            assert await eventually(lambda: fake_engines.running == 0)
    assert await eventually(lambda: fake_engines.running == 0)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
async def test_a_key_may_do_there_what_it_may_do_elsewhere(
    fake_engines: FakeEngines, tmp_path: Path, mode: str
) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    narrow, admin = keys.create("ann", ["run"], models=["ann"]), keys.create("root", ["admin"])
    config = recording_config(tmp_path, keys=tmp_path / "keys.sqlite")
    async with serving(fake_engines, config) as url:
        assert (await post(url, LIST))[0] == 401
        assert (await post(url, LIST, Authorization=f"Bearer {admin}"))[0] == 403
        async with agent(url, narrow, mode) as client:
            refused = await client.call_tool("ask_panel", {"question": "Hi"})
            allowed = await client.call_tool("ask_panel", {"question": "Hi", "model": "ann"})
            listed = await client.call_tool("list_models", {})
    assert (refused.is_error, "cappella/default" in text_of(refused)) == (True, True)
    assert (text_of(allowed), text_of(listed)) == ("Hello there", "ann: a single model")
    lines = [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]
    called = [line for line in lines if line["kind"] in ("run", "call")]
    assert [(line["kind"], line["model"], line["key"]) for line in called] == [("call", "ann", narrow.split("_")[1])]


async def test_a_keys_limit_of_requests_holds(fake_engines: FakeEngines, tmp_path: Path) -> None:
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"], requests_per_minute=1)
    config = with_keys(gateway_config(), tmp_path / "keys.sqlite")
    async with serving(fake_engines, config) as url, agent(url, key) as client:
        answers = [await client.call_tool("ask_panel", {"question": "Hi"}) for _ in range(2)]
    assert [answer.is_error for answer in answers] == [False, True]


@pytest.mark.parametrize(
    ("body", "headers", "status", "part"),
    [
        (LIST, {"Origin": "http://evil.example"}, 403, "origin_not_allowed"),
        (LIST, {"Host": "evil.example"}, 403, "host_not_allowed"),
        (LIST, {"Content-Type": "text/plain"}, 415, "unsupported_media_type"),
        (b"x" * 200_001, {}, 413, "body_too_large"),
        (b"{", {}, 400, "invalid_json"),
        ([LIST], {}, 400, "object"),
    ],
)
async def test_what_is_refused_elsewhere_is_refused_here(
    gateway: str, body: Any, headers: dict[str, str], status: int, part: str
) -> None:
    found, text = await post(gateway, body, **headers)
    assert (found, part in text) == (status, True), text


async def test_the_sdk_leaves_the_log_as_it_is(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    assert (await post(gateway, LIST))[0] == 200
    assert logging.getLogger().handlers == []


async def test_a_reply_that_nobody_reads_to_its_end_ends() -> None:
    ended: list[bool] = []

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        try:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            while True:
                await send({"type": "http.response.body", "body": b'data: {"n": 1}\n\n', "more_body": True})
        finally:
            ended.append(True)

    chunks = Loopback(endless, {"type": "http", "headers": []}, "ann").stream({})
    assert await anext(chunks) == {"n": 1}
    await asyncio.sleep(0)
    await asyncio.wait_for(chunks.aclose(), 10)
    assert ended == [True]


class Unreadable:
    """A server whose stream no view can read; the stream is referred to from here, so that nothing but a `close` ends it."""

    default_model = "cappella/default"

    def __init__(self) -> None:
        self.ended = False

    def stream(self, body: Json) -> AsyncGenerator[Json, None]:
        self.chunks = self._chunks()
        return self.chunks

    async def models(self) -> Json:
        return {}

    async def _chunks(self) -> AsyncGenerator[Json, None]:
        try:
            while True:
                yield {"choices": 1}
        finally:
            self.ended = True


async def test_a_call_that_fails_between_two_chunks_ends_its_run() -> None:
    from mcp import Client

    from cappella.gateway.mcp.tools import server_of

    asked = Unreadable()
    async with Client(server_of(lambda _: asked), read_timeout_seconds=60) as client:
        assert (await client.call_tool("ask_panel", {"question": "Hi"})).is_error
    assert asked.ended


async def test_other_methods_and_near_paths_are_told_of_it(gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        async with http.get(f"{gateway}/mcp") as got:
            assert (got.status, got.headers["Allow"]) == (405, "POST")
            assert "/mcp takes POST, not GET" in (await got.json())["error"]["message"]
        async with http.post(f"{gateway}/mcpp", json={}) as missed:
            assert "Nearest: /mcp." in (await missed.json())["error"]["message"]
        async with http.post(f"{gateway}/mcp/", json=LIST, headers=ACCEPT) as slashed:
            assert slashed.status == 200


async def test_the_operator_may_turn_it_off(fake_engines: FakeEngines) -> None:
    config: Config = gateway_config()
    server = config.server.model_copy(update={"mcp": False})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        assert (await post(url, LIST))[0] == 404


def calling(**params: Any) -> Json:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}


ODD: list[Any] = [
    {},
    {"jsonrpc": "2.0"},
    {"jsonrpc": "1.0", "id": 1, "method": "tools/list"},
    {**LIST, "id": None},
    {**LIST, "id": {"a": 1}},
    {**LIST, "method": 7},
    {**LIST, "method": "no/such"},
    {**LIST, "params": []},
    {**LIST, "params": {"_meta": 3}},
    {"jsonrpc": "2.0", "id": 1, "result": {}},
    {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}},
    {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {"protocolVersion": 9}},
    calling(),
    calling(name="no_such", arguments={}),
    calling(name="ask_panel", arguments=[]),
    calling(name="ask_panel", arguments={"question": {"a": 1}}),
    calling(name="ask_panel", arguments={"question": "Hi", "model": "\ud800"}),
    calling(name="compare", arguments={"question": "Hi", "models": ["a"] * 200}),
    calling(name="ask_panel", arguments={"question": "Hi", "context": {"request_context": 1}}),
]


@pytest.mark.parametrize("version", [None, "2025-06-18", "2026-07-28", "tomorrow"])
async def test_no_message_makes_an_internal_error(gateway: str, version: str | None) -> None:
    for body in ODD:
        headers = {"MCP-Protocol-Version": version} if version else {}
        status, text = await post(gateway, body, **headers)
        assert (status < 500, "Traceback" in text, "Internal error" in text) == (True, False, False), (body, text)


async def test_a_client_that_does_not_read_its_reply_is_dropped(
    fake_engines: FakeEngines, caplog: pytest.LogCaptureFixture
) -> None:
    fake_engines.let("judge", judge_script(Script(("x" * 1_000_000,) * 20)))
    config = gateway_config(analysis="off")
    server = config.server.model_copy(update={"client_timeout_s": 0.3})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        where, body = urlsplit(url), json.dumps(calling(name="ask_panel", arguments={"question": "Hi"})).encode()
        fields = {**ACCEPT, "Host": "localhost", "Content-Length": str(len(body))}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            loop = asyncio.get_running_loop()
            await loop.sock_connect(deaf, (where.hostname, where.port))
            await loop.sock_sendall(deaf, f"POST /mcp HTTP/1.1\r\n{head}\r\n".encode() + body)
            assert await eventually(lambda: "/mcp: the client read nothing for 0.3 s" in caplog.text, 60)
            assert await eventually(lambda: fake_engines.running == 0)
        assert (await post(url, LIST))[0] == 200
