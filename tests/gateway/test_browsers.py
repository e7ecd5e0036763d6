"""What browsers are told on every reply, and that a page elsewhere cannot use a person's browser to call us."""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cappella.auth.keys import KeyStore
from cappella.gateway.browser_security import SecurityHeaders
from support.fake_engines import FakeEngines, gateway_config, serving

CHAT = "/v1/chat/completions"
BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
SAID = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
PREFLIGHT = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization,content-type"}


def config(**server: Any) -> Any:
    whole = gateway_config()
    return whole.model_copy(update={"server": whole.server.model_validate({**whole.server.model_dump(), **server})})


async def ask(
    url: str, method: str = "POST", path: str = CHAT, body: Any = BODY, **headers: str
) -> tuple[int, Mapping[str, str], Any]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    how = {"json": body} if method == "POST" else {}
    async with aiohttp.ClientSession() as http, http.request(method, url + path, headers=named, **how) as reply:
        whole = await reply.json() if reply.content_type == "application/json" else await reply.text()
        return reply.status, reply.headers, whole


def code(reply: tuple[int, Mapping[str, str], Any]) -> tuple[int, str]:
    return reply[0], reply[2]["error"]["code"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", CHAT, BODY, 200),
        ("POST", CHAT, {**BODY, "stream": True}, 200),
        ("POST", CHAT, {**BODY, "model": "ann"}, 200),
        ("POST", CHAT, {**BODY, "model": "ann", "stream": True}, 200),
        ("POST", CHAT, {**BODY, "model": "nobody"}, 404),
        ("POST", CHAT, {}, 400),
        ("POST", "/v1/messages", {}, 400),
        ("GET", CHAT, None, 405),
        ("OPTIONS", CHAT, None, 405),
        ("GET", "/nowhere", None, 404),
        ("GET", "/health", None, 200),
        ("GET", "/metrics", None, 200),
    ],
)
async def test_every_reply_has_the_security_headers(
    gateway: str, method: str, path: str, body: Any, status: int
) -> None:
    got, headers, _ = await ask(gateway, method, path, body)
    assert got == status
    assert {name: headers.getall(name) for name in SAID} == {name: [value] for name, value in SAID.items()}  # type: ignore[attr-defined]
    assert not {"Server", "Set-Cookie", "Strict-Transport-Security"} & set(headers)
    assert not any(name.startswith("Access-Control") for name in headers)


async def test_an_error_reply_has_the_security_headers(
    gateway: str, fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cappella.gateway.routes.resolve", lambda *_: 1 / 0)
    status, headers, body = await ask(gateway)
    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert headers["Content-Security-Policy"] == SAID["Content-Security-Policy"]


async def test_with_tls_replies_have_strict_transport_security(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, config(tls={"certificate": "c", "private_key": "k"})) as url:
        assert (await ask(url))[1]["Strict-Transport-Security"] == "max-age=31536000"


async def test_headers_that_a_reply_sets_itself_are_kept() -> None:
    async def page(scope: Scope, receive: Receive, send: Send) -> None:
        await Response(headers={"Content-Security-Policy": "default-src 'self'"})(scope, receive, send)

    async def keep(message: Message) -> None:
        sent.append(message)

    sent: list[Message] = []
    app = SecurityHeaders(page, tls=False)
    await app({"type": "http", "method": "GET", "path": "/", "headers": []}, None, keep)  # type: ignore[arg-type]
    policies = [value for name, value in sent[0]["headers"] if name == b"content-security-policy"]
    assert policies == [b"default-src 'self'"]


@pytest.mark.parametrize("host", ["localhost:8000", "LocalHost", "127.0.0.1:1", "[::1]:8000", "10.0.0.7", "localhost."])
async def test_addresses_and_localhost_are_allowed_hosts(gateway: str, host: str) -> None:
    assert (await ask(gateway, Host=host))[0] == 200


@pytest.mark.parametrize("host", ["evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "x:1:2"])
@pytest.mark.parametrize(("method", "path"), [("POST", CHAT), ("GET", "/v1/models"), ("GET", "/metrics")])
async def test_a_foreign_host_name_is_refused(
    gateway: str, fake_engines: FakeEngines, host: str, method: str, path: str
) -> None:
    reply = await ask(gateway, method, path, Host=host)
    assert code(reply) == (403, "host_not_allowed")
    assert "add the name to server.allowed_hosts" in reply[2]["error"]["message"]
    assert reply[1]["Content-Security-Policy"] == SAID["Content-Security-Policy"]
    assert not any(server.bodies for server in fake_engines.servers.values())


async def test_host_names_of_the_config_are_allowed(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, config(allowed_hosts=["gpu1.lan"])) as url:
        assert (await ask(url, Host="gpu1.lan:8000"))[0] == 200
        assert code(await ask(url, Host="gpu2.lan:8000")) == (403, "host_not_allowed")


async def test_with_keys_any_host_is_allowed_unless_the_config_lists_hosts(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.sqlite"
    key = f"Bearer {KeyStore(keys).create('ann', ['run'])}"
    async with serving(fake_engines, config(keys=keys)) as url:
        assert (await ask(url, Host="gpu1.lan", Authorization=key))[0] == 200
    async with serving(fake_engines, config(keys=keys, allowed_hosts=["gpu1.lan"])) as url:
        assert code(await ask(url, Host="gpu2.lan", Authorization=key)) == (403, "host_not_allowed")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:3000"])
async def test_without_keys_a_page_of_another_origin_is_refused(
    gateway: str, fake_engines: FakeEngines, origin: str
) -> None:
    for reply in (await ask(gateway, Origin=origin), await ask(gateway, "OPTIONS", Origin=origin, **PREFLIGHT)):
        assert code(reply) == (403, "origin_not_allowed")
        assert "add it to server.cors_origins" in reply[2]["error"]["message"]
        assert not any(name.startswith("Access-Control") for name in reply[1])
    assert not any(server.bodies for server in fake_engines.servers.values())


async def test_the_own_page_may_call_the_api(gateway: str) -> None:
    status, headers, _ = await ask(gateway, Origin=gateway)
    assert (status, "Access-Control-Allow-Origin" in headers) == (200, False)


async def test_with_keys_a_page_of_another_origin_gets_no_cors_headers(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    keys = tmp_path / "keys.sqlite"
    key = f"Bearer {KeyStore(keys).create('ann', ['run'])}"
    async with serving(fake_engines, config(keys=keys)) as url:
        status, headers, _ = await ask(url, Origin="https://evil.example", Authorization=key)
        assert (status, "Access-Control-Allow-Origin" in headers) == (200, False)
        assert code(await ask(url, "OPTIONS", Origin="https://evil.example", **PREFLIGHT)) == (
            403,
            "origin_not_allowed",
        )


@pytest.mark.parametrize("stream", [False, True])
async def test_origins_of_the_config_may_call_and_read(fake_engines: FakeEngines, stream: bool) -> None:
    page = "https://chat.lan"
    async with serving(fake_engines, config(cors_origins=[page])) as url:
        for method in ("POST", "DELETE"):
            asked = {**PREFLIGHT, "Access-Control-Request-Method": method}
            status, headers, _ = await ask(url, "OPTIONS", Origin=page, **asked)
            assert (status, headers["Access-Control-Allow-Origin"]) == (200, page)
            assert headers["Access-Control-Allow-Headers"] == "authorization,content-type"
        for body, wanted in ((BODY, 200), ({}, 400)):
            status, headers, _ = await ask(url, body={**body, "stream": stream}, Origin=page)
            assert (status, headers["Access-Control-Allow-Origin"]) == (wanted, page)
            assert "Access-Control-Allow-Credentials" not in headers
            assert headers["Vary"] == "Origin"
        for other in ("https://chat.lan:8443", "http://chat.lan", "https://chat.lan.evil.example"):
            assert code(await ask(url, Origin=other)) == (403, "origin_not_allowed")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", ""])
@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_a_body_without_the_json_content_type_is_415(
    gateway: str, fake_engines: FakeEngines, kind: str, model: str
) -> None:
    reply = await ask(gateway, body={**BODY, "model": model}, Content_Type=kind)
    assert code(reply) == (415, "unsupported_media_type")
    assert "send Content-Type: application/json" in reply[2]["error"]["message"]
    assert not any(server.bodies for server in fake_engines.servers.values())


@pytest.mark.parametrize("kind", ["application/json", "Application/JSON; charset=utf-8"])
async def test_every_spelling_of_the_json_content_type_is_accepted(gateway: str, kind: str) -> None:
    assert (await ask(gateway, Content_Type=kind))[0] == 200


async def test_a_request_without_a_host_is_allowed(gateway: str) -> None:
    port = int(gateway.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /health HTTP/1.0\r\n\r\n")
    assert b"200" in await reader.readline()
    writer.close()
    await writer.wait_closed()
