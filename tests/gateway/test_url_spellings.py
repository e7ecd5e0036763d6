"""Paths of a base URL that is not quite right, HEAD, and errors that name what there is."""

from typing import Any

import aiohttp
import pytest
from yarl import URL

USER: Any = [{"role": "user", "content": "Hi"}]
CHAT: Any = {"model": "ann", "messages": USER}


async def ask(url: str, method: str, path: str, **options: Any) -> tuple[int, Any]:
    address = URL(f"{url}{path}", encoded=True)
    async with aiohttp.ClientSession() as http, http.request(method, address, **options) as reply:
        return reply.status, await reply.json() if method != "HEAD" else await reply.read()


@pytest.mark.parametrize(
    "path",
    [
        "/v1/v1/chat/completions",
        "/chat/completions",
        "/v1/chat/completions/",
        "//v1//chat/completions",
        "/api/v1/chat/completions",
        "/v1/v1/v1/chat/completions?x=1",
    ],
)
async def test_a_base_url_with_v1_twice_or_not_at_all_is_answered(gateway: str, path: str) -> None:
    status, reply = await ask(gateway, "POST", path, json=CHAT)
    assert (status, reply["object"]) == (200, "chat.completion")


@pytest.mark.parametrize(
    ("path", "key"),
    [
        ("/models", "data"),
        ("/v1/models/", "data"),
        ("/v1/models/cappella/default/", "id"),
        ("/v1/v1/models/cappella%2Fdefault", "id"),
        ("/v1/api/tags", "models"),
        ("/api/machine/", "engines"),
        ("/v1/health", "status"),
    ],
)
async def test_other_endpoints_are_found_too(gateway: str, path: str, key: str) -> None:
    status, reply = await ask(gateway, "GET", path)
    assert (status, key in reply) == (200, True)


@pytest.mark.parametrize("path", ["/", "/v1/models", "/v1/models/ann", "/health", "/api/version", "/models/"])
async def test_head_is_answered_without_a_body(gateway: str, path: str) -> None:
    assert await ask(gateway, "HEAD", path) == (200, b"")


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        (
            "POST",
            "/v1/chat/completion",
            404,
            ["There is no /v1/chat/completion here", "/v1/chat/completions", "/openapi.json"],
        ),
        ("POST", "/v1/audio/speech", 404, ["There is no /v1/audio/speech here", "/openapi.json"]),
        ("GET", "/v1/chat/completions", 405, ["/v1/chat/completions takes POST, not GET", "/openapi.json"]),
        ("POST", "/v1/models", 405, ["takes GET, not POST"]),
    ],
)
async def test_an_error_names_what_there_is(
    gateway: str, method: str, path: str, status: int, words: list[str]
) -> None:
    got, reply = await ask(gateway, method, path)
    assert got == status
    for each in words:
        assert each in reply["error"]["message"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/messages"), ("POST", "/v1/messages/batches"), ("GET", "/messages/count_tokens")]
)
async def test_errors_on_anthropics_paths_are_anthropics(gateway: str, method: str, path: str) -> None:
    assert (await ask(gateway, method, path))[1]["type"] == "error"


async def test_errors_on_ollamas_paths_are_texts(gateway: str) -> None:
    status, reply = await ask(gateway, "GET", "/api/chat")
    assert (status, "takes POST" in reply["error"]) == (405, True)
