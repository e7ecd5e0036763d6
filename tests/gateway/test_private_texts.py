"""No text of a request, whatever field of whatever endpoint it stands in, is in a log or in the files that keep none.

`tests/real/test_real_privacy.py` does the same to the logs of real engines.
"""

import json
import stat
from collections.abc import AsyncIterator, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Config
from support.batch_gateway import with_batches
from support.fake_engines import MEMBERS, FakeEngines, eventually, serving
from support.recorded_gateway import recording_config
from support.scripted_engine import Json, Script
from support.scripted_pooling import add_pooling, pooling_config
from support.stored_batches import CHAT, lines_of
from support.strict_gateway import with_keys
from support.tool_server import command, serves

MARK = "MARKmillerhiv"
SAID = {"messages": [{"role": "user", "content": f"Say {MARK}."}], "max_tokens": 9, "user": MARK}
MESSAGES = "/v1/messages/batches"


def bodies() -> Iterator[tuple[str, Json]]:
    """Legal and wrong ones: a mistake is quoted in its own reply alone. The names of models that gave answers are kept."""
    for model in ("ann", "cappella/default", MARK):
        for path in (CHAT, "/v1/messages", "/api/chat", "/v1/messages/count_tokens"):
            yield path, {"model": model, **SAID}
            yield path, {"model": model, **SAID, MARK: MARK, "metadata": {MARK: MARK}, "stop": [MARK]}
            yield path, {"model": model, "messages": [{"role": MARK, "content": [{"type": MARK, MARK: MARK}]}]}
            yield path, {"model": model, **SAID, "tools": [{"name": MARK, "function": {"name": MARK}}]}
        yield "/v1/responses", {"model": model, "input": MARK, "instructions": MARK, "previous_response_id": MARK}
        yield "/v1/responses", {"model": model, "input": [{"type": "item_reference", "id": MARK}]}
        yield "/v1/responses", {"model": model, "input": MARK, "text": {"format": {"type": MARK, "name": MARK}}}
        yield "/v1/completions", {"model": model, "prompt": MARK, "suffix": MARK}
        yield "/api/generate", {"model": model, "prompt": MARK, "system": MARK, "options": {MARK: MARK}}
        yield "/api/generate", {"model": model, "prompt": MARK, "images": [MARK], "format": MARK}
        yield "/api/show", {"model": model, MARK: MARK}
        yield "/tokenize", {"model": model, "prompt": MARK}
        yield "/v1/judge", {"model": model, "prompt": MARK, "answers": [MARK, {"content": MARK, "model": "gpt"}]}
        yield "/v1/judge", {"model": model, "prompt": MARK, "answers": [MARK], "rubric": [{"name": MARK}]}
        yield "/v1/judge", {"ensemble": model, "prompt": MARK, "answers": [MARK], "criteria": MARK, "want": [MARK]}
    for fusion in ({"strategy": MARK}, {MARK: 1}, {"panel": [MARK]}, {"answers": [{"model": "gpt", "content": MARK}]}):
        yield CHAT, {"model": "cappella/default", **SAID, "fusion": fusion}
    for path, model in (("/v1/embeddings", "emb"), ("/v1/rerank", "rank"), ("/v1/score", "rank"), ("/classify", "rm")):
        asked = {"input": MARK, "query": MARK, "documents": [MARK], "text_1": MARK, "text_2": [MARK]}
        yield path, {"model": model, **asked}
        yield path, {"model": model, **asked, "encoding_format": MARK, MARK: MARK}
    for tool in ("ask_panel", "compare", "list_models", MARK):
        arguments = {"question": MARK, "system": MARK, "preset": MARK, MARK: MARK}
        yield (
            "/mcp",
            {"jsonrpc": "2.0", "id": MARK, "method": "tools/call", "params": {"name": tool, "arguments": arguments}},
        )
    yield "/mcp", {"jsonrpc": "2.0", "id": 1, "method": MARK, "params": {MARK: MARK}}
    named: Json = {
        "name": MARK,
        "uri": MARK,
        "level": MARK,
        "cursor": MARK,
        "ref": {"type": "ref/prompt", "name": MARK},
    }
    for method in ("prompts/get", "resources/read", "resources/subscribe", "logging/setLevel", "completion/complete"):
        yield "/mcp", {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**named, "argument": named}}
    yield "/mcp", {"jsonrpc": "2.0", "method": "notifications/progress", "params": {MARK: MARK}}
    yield "/v1/batches", {"input_file_id": MARK, "endpoint": CHAT, "completion_window": "24h"}
    yield "/v1/batches", {"input_file_id": "f", "endpoint": MARK, "completion_window": MARK, "metadata": {MARK: MARK}}
    yield MESSAGES, {"requests": [{"custom_id": MARK, "params": {"model": MARK, **SAID}}, {"custom_id": "a b"}]}
    yield MESSAGES, {"requests": [{"custom_id": MARK, "params": {"model": "ann", **SAID, MARK: MARK}}]}


def paths() -> Iterator[tuple[str, str]]:
    """Those with a name in them."""
    for path in ("/v1/responses", "/v1/files", "/v1/batches", MESSAGES, "/v1/models", "/api/runs", "/api/engines"):
        yield "GET", f"{path}/{MARK}"
        yield "GET", f"{path}/{MARK}/content?after={MARK}"
        yield "DELETE", f"{path}/{MARK}"
    yield "GET", f"/v1/files?after={MARK}&purpose={MARK}&limit={MARK}"


@pytest.fixture
async def http(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[aiohttp.ClientSession]:
    """A gateway that keeps runs and an audit log without content, and batches; engines that quote in their errors, too."""
    await add_pooling(fake_engines, tmp_path)
    files = {"audit": {"file": str(tmp_path / "audit.jsonl")}, "runs": {"file": str(tmp_path / "runs.sqlite")}}
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run", "admin"])
    config = with_keys(with_batches(pooling_config(files), tmp_path), tmp_path / "keys.sqlite")
    async with serving(fake_engines, config) as url, aiohttp.ClientSession(url, headers={"x-api-key": key}) as http:
        yield http


async def send(http: aiohttp.ClientSession, path: str, data: bytes, kind: str = "application/json") -> Json:
    headers = {"Content-Type": kind, "Accept": "application/json, text/event-stream"}
    async with http.post(path, data=BytesIO(data), headers=headers) as reply:
        text = await reply.text()
        assert reply.status < 500 or "error" in text, (path, reply.status, text)
        return dict(json.loads(text)) if text and reply.content_type == "application/json" else {}


async def batch(http: aiohttp.ClientSession) -> None:
    """A batch whose rows, and their ids and files, have the mark; it has ended when this returns."""
    rows = [{"model": model, **SAID} for model in ("ann", "cappella/default")]
    content = b"".join(lines_of(rows)).replace(b'"r1"', f'"{MARK}"'.encode())
    form = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{MARK}.jsonl"\r\n\r\n'.encode() + content
    form += b'\r\n--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n--x--\r\n'
    file = await send(http, "/v1/files", form, "multipart/form-data; boundary=x")
    wanted = {"input_file_id": file["id"], "endpoint": CHAT, "completion_window": "24h", "metadata": {MARK: MARK}}
    made = await send(http, "/v1/batches", json.dumps(wanted).encode())
    status = ""
    while status not in ("completed", "failed"):
        async with http.get(f"/v1/batches/{made['id']}") as reply:
            status = (await reply.json())["status"]
    wrong = form.replace(b'"POST"', f'"{MARK}"'.encode()).replace(b"\r\nbatch\r\n", b"\r\n%b\r\n" % MARK.encode())
    await send(http, "/v1/files", wrong, "multipart/form-data; boundary=x")


def quoted_in(folder: Path) -> list[str]:
    """The files that have the mark, without those of batches, whose rows and replies these are."""
    found = (path for path in folder.rglob("*") if path.is_file() and "batches" not in path.parts)
    return [path.name for path in found if MARK.encode() in path.read_bytes()]


async def test_no_log_and_no_file_without_content_quotes_a_request(
    http: aiohttp.ClientSession, fake_engines: FakeEngines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    error: Any = {"error": {"message": f"cannot take {MARK}", "type": MARK, "code": 400}}
    for refuse in (None, (400, error), (500, error)):
        for name in (*MEMBERS, "judge"):
            fake_engines.let(name, Script((MARK,), refuse=refuse))
        for path, body in bodies():
            await send(http, path, json.dumps(body).encode())
        if refuse is None or refuse[0] == 400:
            await batch(http)
    for method, path in paths():
        async with http.request(method, path) as reply:
            assert reply.status < 500
    assert caplog.records
    assert MARK not in caplog.text
    assert MARK not in "".join(str(record.__dict__) for record in caplog.records)
    assert await eventually(lambda: (tmp_path / "audit.jsonl").stat().st_size > 10_000)
    assert quoted_in(tmp_path) == []
    assert stat.S_IMODE((tmp_path / "batches").stat().st_mode) == 0o700
    async with http.get("/metrics") as reply:
        assert MARK not in await reply.text()


async def test_what_tools_are_asked_and_find_is_in_no_log_and_no_file_without_content(
    fake_engines: FakeEngines, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config = recording_config(tmp_path).model_dump(exclude_unset=True)
    config["ensembles"]["default"]["panel"] = [{"model": "ann", "tools": ["small"]}, "bob", "cat"]
    called = Script((), calls=(("echo", json.dumps({"text": MARK})), (MARK, MARK)), finish_reason="tool_calls")
    fake_engines.let("ann", lambda body: Script((MARK,)) if body["messages"][-1]["role"] == "tool" else called)
    served = Config.model_validate({**config, "tools": {"small": {"command": command()}}})
    async with serving(fake_engines, served) as url, aiohttp.ClientSession(url) as http:
        await serves(fake_engines.reloader.state.tool_servers["small"])
        reply = await send(http, CHAT, json.dumps({"model": "cappella/default", **SAID}).encode())
        # Its client is told all of it.
        assert [use["arguments"] for use in reply["fusion"]["tool_calls"] if use["server"]] == [f'{{"text": "{MARK}"}}']
    assert MARK not in caplog.text
    assert (tmp_path / "runs.sqlite").exists()
    assert quoted_in(tmp_path) == []
