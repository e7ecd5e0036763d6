"""The key of an engine that listens on a network."""

from collections.abc import MutableMapping
from typing import Any

import pytest

from cappella.engines.vllm.key_check import KEY, RequireKey


async def sent(kind: str, monkeypatch: pytest.MonkeyPatch, *headers: tuple[bytes, bytes]) -> list[dict[str, Any]]:
    """What a client is sent, where the server itself would say hello."""
    monkeypatch.setenv(KEY, "secret")
    messages: list[dict[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        messages.append(dict(message))

    async def receive() -> MutableMapping[str, Any]:
        return {}

    async def server(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "hello"})

    await RequireKey(server)({"type": kind, "path": "/metrics", "headers": list(headers)}, receive, send)
    return messages


async def test_who_sends_the_key_reaches_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await sent("http", monkeypatch, (b"authorization", b"Bearer secret")) == [{"type": "hello"}]


@pytest.mark.parametrize("value", [b"Bearer wrong", b"secret", b"", b"Bearer s\xc3\xa9cret"])
async def test_another_key_is_a_401_and_the_server_sees_nothing(value: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    first, *_ = await sent("http", monkeypatch, (b"authorization", value))
    assert first["status"] == 401


async def test_no_key_is_a_401_at_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (await sent("http", monkeypatch))[0]["status"] == 401


async def test_a_websocket_is_closed_also_with_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    (closed,) = await sent("websocket", monkeypatch, (b"authorization", b"Bearer secret"))
    assert closed["type"] == "websocket.close"


async def test_the_servers_own_start_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await sent("lifespan", monkeypatch) == [{"type": "hello"}]
