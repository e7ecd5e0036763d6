"""No upload, list or row of a batch holds the event loop: see `test_loop.py`."""

import json
import sqlite3
import time
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path

import aiohttp
import pytest

from cappella.batch import beginnings, files
from cappella.batch.store import BatchStore
from cappella.batch.types import NewBatch, StoredFile
from support.batch_gateway import until, with_batches
from support.fake_engines import FakeEngines, serving
from support.loop_watchdog import held_too_long, watched_loop
from support.recorded_gateway import recording_config
from support.scripted_engine import Json, Script
from support.scripted_pooling import add_pooling, pooling_config
from support.stored_batches import CHAT, stored_batch

BEGIN = b'--x\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
END = b"--x--\r\n"
FILE = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n%b\r\n'
FIELD = b"--x\r\nContent-Disposition: form-data; %b\r\n\r\n\r\n"
FORMS = {
    "line ends": (FILE % (b"\r\n" * 2_000_000), 200),
    "almost boundaries": (FILE % (b"\r\n--" * 1_000_000), 200),
    "fields without text": (b"".join(FIELD % b'name="f%d"' % number for number in range(50_000)), 413),
    "parts without anything": (b"--x\r\n\r\n\r\n" * 200_000, 413),
    "parameters of fields": ((FIELD % (b'a="b";' * 600)) * 500, 413),
}
REQUESTS = {
    "small": [{"custom_id": str(number), "params": {}} for number in range(20_000)],
    "of many objects": [{"custom_id": str(number), "params": {"x": [[[1]]] * 3000}} for number in range(100)],
    "of one text": [{"custom_id": "a", "params": {"messages": [{"role": "user", "content": "<|" * 1_900_000}]}}],
}


@pytest.fixture
async def url(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[str]:
    await add_pooling(fake_engines, tmp_path)
    config = pooling_config()
    config = config.model_copy(update={"server": config.server.model_copy(update={"max_body_bytes": 4 << 20})})
    async with serving(fake_engines, with_batches(config, tmp_path)) as url:
        yield url


def store_of(fake_engines: FakeEngines) -> BatchStore:
    store = fake_engines.reloader.state.batches
    assert store
    return store


async def post(url: str, data: bytes, kind: str) -> int:
    headers = {"Content-Type": kind}
    async with aiohttp.ClientSession() as http, http.post(url, data=BytesIO(data), headers=headers) as reply:
        await reply.read()
        return reply.status


@pytest.mark.parametrize(("form", "status"), [pytest.param(*form, id=name) for name, form in FORMS.items()])
async def test_no_form_holds_the_loop_and_none_takes_memory(url: str, form: bytes, status: int) -> None:
    """A form has 64 KiB beside its file, and each of its parts counts."""

    async def upload() -> None:
        assert await post(f"{url}/v1/files", BEGIN + form + END, "multipart/form-data; boundary=x") == status

    assert await held_too_long(upload) == {}


@pytest.mark.parametrize("requests", [pytest.param(each, id=name) for name, each in REQUESTS.items()])
async def test_no_list_of_requests_holds_the_loop(url: str, requests: list[Json]) -> None:
    data = json.dumps({"requests": requests}).encode()

    async def create() -> None:
        assert await post(f"{url}/v1/messages/batches", data, "application/json") == 200

    assert await held_too_long(create) == {}


def fill(db: sqlite3.Connection) -> None:
    """The most that one page shows of each list."""
    now, file = time.time(), f"file-{'a' * 24}"
    files.insert(db, StoredFile(file, None, "batch", "n", 10, now, now + 1e6))
    for _ in range(10_000):
        files.insert(db, StoredFile(files.new_file_id(), None, "batch", "n" * 255, 10, now, now + 1e6))
    problems = [{"code": "x", "line": number, "message": "m" * 300, "param": "body.x"} for number in range(100)]
    metadata = {f"k{number}": "v" * 512 for number in range(16)}
    for _ in range(100):
        beginnings.insert(db, NewBatch(None, "openai", CHAT, file, 1.0, metadata, None, problems), [])
    for _ in range(1000):
        batch_id = beginnings.insert(db, NewBatch(None, "anthropic", "/v1/messages", file, 1.0), [])
        done = ("completed", json.dumps({"completed": now}), batch_id)
        db.execute("UPDATE batches SET status = ?, times = ? WHERE id = ?", done)


@pytest.mark.parametrize("path", ["/v1/files?limit=10000", "/v1/batches?limit=100", "/v1/messages/batches?limit=1000"])
async def test_no_list_holds_the_loop(url: str, fake_engines: FakeEngines, path: str) -> None:
    await store_of(fake_engines)._folder.call(fill)

    async def look() -> None:
        async with aiohttp.ClientSession() as http, http.get(url + path) as reply:
            assert len((await reply.json())["data"]) == int(path.partition("=")[2])

    assert await held_too_long(look) == {}


async def test_no_reply_to_a_row_holds_the_loop(fake_engines: FakeEngines, url: str) -> None:
    """Embeddings of most texts: 20 MB of numbers, which are read for the row's tokens, and kept as they are."""
    fake_engines.servers["emb"].vector = lambda _: [0.123456789] * 1024  # type: ignore[attr-defined]
    store = store_of(fake_engines)

    async def answer() -> None:
        batch = await stored_batch(store, [{"model": "emb", "input": ["x"] * 2048}], endpoint="/v1/embeddings")
        found = await until(store, batch, status="completed")
        assert (found.completed, found.total_tokens > 0) == (1, True)

    assert await held_too_long(answer) == {}


async def test_the_audit_of_a_long_stream_holds_no_loop(fake_engines: FakeEngines, tmp_path: Path) -> None:
    """With `log_content` its events are read again, one by one."""
    fake_engines.let("ann", Script(("word ",) * 5000))
    config = recording_config(tmp_path, audit={"log_content": True})
    with watched_loop() as watchdog:
        async with serving(fake_engines, config) as url:
            body = {"model": "ann", "messages": [{"role": "user", "content": "x"}], "stream": True}
            assert await post(url + CHAT, json.dumps(body).encode(), "application/json") == 200
    own = {name: held_s for name, held_s in watchdog.too_long(1.0).items() if "stream_response" in name}
    assert own == {}
    assert b"word word word" in (tmp_path / "audit.jsonl").read_bytes()
