"""`server.unknown_fields: refuse`: a field that nothing here knows is a 400, at its place, in every API and for models too."""

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from support.fake_engines import FakeEngines, gateway_config, serving

USER: Any = {"messages": [{"role": "user", "content": "Hi"}]}
CHAT, RESPONSES, MESSAGES = "/v1/chat/completions", "/v1/responses", "/v1/messages"


@pytest.fixture
async def url(fake_engines: FakeEngines) -> AsyncIterator[str]:
    config = gateway_config()
    server = config.server.model_copy(update={"unknown_fields": "refuse"})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        yield url


async def ask(url: str, path: str, **body: Any) -> tuple[int, Any]:
    async with (
        aiohttp.ClientSession() as http,
        http.post(url + path, json={"model": "cappella/default", **body}) as reply,
    ):
        return reply.status, await reply.json(content_type=None)


@pytest.mark.parametrize(
    ("path", "body", "place"),
    [
        (CHAT, {**USER, "nobody_knows": 1}, "nobody_knows"),
        (CHAT, {**USER, "model": "ann", "nobody_knows": 1}, "nobody_knows"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "odd": 1}]}]},
         "messages.0.content.0.odd"),
        (RESPONSES, {"input": "Hi", "nobody_knows": 1}, "nobody_knows"),
        (RESPONSES, {"input": [{"role": "user", "content": "a", "odd": True}]}, "input.0.odd"),
        (RESPONSES, {"input": "Hi", "text": {"store": True}}, "text.store"),
        (MESSAGES, {**USER, "max_tokens": 9, "nobody_knows": {}}, "nobody_knows"),
        (MESSAGES, {**USER, "max_tokens": 9, "model": "ann", "nobody_knows": {}}, "nobody_knows"),
    ],
)  # fmt: skip
async def test_an_unknown_field_is_refused_at_its_place(
    url: str, fake_engines: FakeEngines, path: str, body: Any, place: str
) -> None:
    status, reply = await ask(url, path, **body)
    assert status == 400
    assert f"{place}: there is no such field (server.unknown_fields: refuse)" in reply["error"]["message"]
    if path != MESSAGES:
        assert (reply["error"]["param"], reply["error"]["code"]) == (place, "unknown_field")
    assert not any(server.bodies for server in fake_engines.servers.values())


@pytest.mark.parametrize("model", ["cappella/default", "ann"])
async def test_hints_and_what_asks_for_nothing_are_taken_all_the_same(url: str, model: str) -> None:
    hints = {"metadata": {"a": "b"}, "user": "u", "prompt_cache_key": "k", "store": False, "n": None, "logit_bias": {}}
    status, reply = await ask(url, CHAT, **USER, **hints, nobody_knows=None, model=model)
    assert status == 200, reply
