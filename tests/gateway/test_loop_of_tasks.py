"""No legal body for a judgement, embeddings, scores or `/mcp` holds the event loop: see `test_loop.py`."""

import json
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.config.limits import Limits
from cappella.engines.sanitize import Sanitizer
from support.fake_engines import FakeEngines, serving
from support.loop_watchdog import held_too_long
from support.scripted_engine import Json
from support.scripted_pooling import add_pooling, pooling_config

LIMITS = Limits()
SIZE = 3_900_000
USER = {"role": "user", "content": "<|" * 900}
MOST = ["<|" * 480] * LIMITS.inputs
JUDGED: dict[str, Json] = {
    "most answers": {"prompt": "x", "answers": ["<|" * 70_000] * 26, "want": ["scores"]},
    "most to read": {"prompt": "x", "answers": ["<|" * 12_000] * 11, "want": ["preference", "analysis"]},
    "most messages": {"messages": [USER] * LIMITS.messages, "answers": ["a", "b"]},
    "most parts": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "<|" * 450}] * LIMITS.parts}],
        "answers": ["a", "b"],
    },
}
POOLED: list[tuple[str, str, Json]] = [
    ("/v1/embeddings", "most texts", {"model": "emb", "input": MOST}),
    ("/v1/embeddings", "most tokens", {"model": "emb", "input": [[100_000] * 230] * LIMITS.inputs}),
    ("/v1/embeddings", "100 kB of texts", {"model": "emb", "input": ["x"] * LIMITS.inputs}),
    ("/v1/rerank", "most documents", {"model": "rank", "query": "x", "documents": MOST}),
    (
        "/v1/rerank",
        "100 kB of documents",
        {"model": "rank", "query": "x", "documents": [{"text": "x"}] * LIMITS.inputs},
    ),
    ("/v1/rerank", "without them", {"model": "rank", "query": "x", "documents": MOST, "return_documents": False}),
    ("/v1/score", "most texts", {"model": "rank", "text_1": "x", "text_2": MOST}),
    ("/classify", "most messages", {"model": "rm", "messages": [USER] * LIMITS.messages}),
    ("/classify", "one text", {"model": "rm", "input": "<|" * 900_000}),
]


@pytest.fixture
async def url(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[str]:
    await add_pooling(fake_engines, tmp_path)
    for name in ("ann", "bob", "cat", "judge"):
        fake_engines.engines[name]._sanitizer = Sanitizer(tuple(f"<|reserved_{number}|>" for number in range(818)))
    config = pooling_config()
    server = config.server.model_copy(update={"max_body_bytes": 4 << 20})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        yield url


async def post(url: str, body: Any) -> tuple[int, bytes]:
    headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
    data = BytesIO(json.dumps(body).encode())
    async with aiohttp.ClientSession() as http, http.post(url, data=data, headers=headers) as reply:
        return reply.status, await reply.read()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        *(pytest.param("/v1/judge", {"model": "ann", **body}, id=f"judge: {name}") for name, body in JUDGED.items()),
        *(pytest.param(path, body, id=f"{path}: {name}") for path, name, body in POOLED),
    ],
)
async def test_no_legal_body_holds_the_loop(url: str, path: str, body: Json) -> None:
    async def ask() -> None:
        status, answer = await post(url + path, body)
        # A scripted judge judges nothing, and says so after all its calls.
        assert (status == 200 or b"judge_failed" in answer) is True, answer[:300]

    assert await held_too_long(ask) == {}


def call(name: str, **arguments: Any) -> Json:
    return {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": name, "arguments": arguments}}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        pytest.param(call("ask_panel", question="<|" * (SIZE // 8)), 200, id="a question"),
        pytest.param(call("ask_panel", question="\n" * 15_000 + "x"), 200, id="blank lines"),
        pytest.param(call("ask_panel", question="x", **{f"a{n}": n for n in range(200_000)}), 400, id="arguments"),
        pytest.param(call("compare", question="x", models=["a"] * 700_000), 400, id="models"),
        pytest.param(
            {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"x": [[1]] * 24_000}}, 400, id="lists"
        ),
        pytest.param(
            {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"x": [1] * 9000}}, 400, id="notes"
        ),
    ],
)
async def test_no_message_to_mcp_holds_the_loop(url: str, body: Json, status: int) -> None:
    assert (await post(f"{url}/mcp", {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}))[0] == 200

    async def call() -> None:
        assert (await post(f"{url}/mcp", body))[0] == status

    assert await held_too_long(call) == {}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {"model": "rank", "query": "x", "documents": [1] * 1_200_000}),
        ("/v1/score", {"model": "rank", "text_1": "x", "text_2": [1] * 1_200_000}),
        ("/v1/embeddings", {"model": "emb", "input": [["x"] * 700_000]}),
        ("/v1/judge", {"model": "ann", "prompt": "x", "answers": ["a"], "want": ["x"] * 700_000}),
    ],
)
async def test_mistakes_by_the_million_take_neither_time_nor_memory(url: str, path: str, body: Json) -> None:
    """Each was a record of its own: 4 MB of wrong documents took a minute and 5 GB."""

    async def ask() -> None:
        status, answer = await post(url + path, body)
        assert status == 400
        assert b"too_large" in answer

    assert await held_too_long(ask) == {}
