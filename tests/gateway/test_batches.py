"""`/v1/batches` as the stock client uses it, over scripted engines: rows are answered as requests are."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import openai
import orjson
import pytest
from openai import AsyncOpenAI
from pydantic import TypeAdapter

from cappella.auth.keys import KeyStore
from cappella.batch.store import BatchStore
from cappella.config import Audit
from cappella.errors import BatchRefused
from cappella.gateway import openapi
from support.batch_clients import batching, create, ended, lines_in, stock_client, upload
from support.batch_gateway import batch_config
from support.fake_engines import FakeEngines, eventually, serving
from support.kept_gateway import client, hold
from support.scripted_pooling import add_pooling, pooling_config
from support.stored_batches import CHAT, body, lines_of


@pytest.fixture
async def stock(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[AsyncOpenAI]:
    async with stock_client(fake_engines, tmp_path, max_rows=5) as stock:
        yield stock


async def test_a_batch_is_answered_by_ensembles_and_models(stock: AsyncOpenAI) -> None:
    bodies = [body("one"), body("two", model="ann"), body("three", temperature=5)]
    made = await create(stock, bodies, metadata={"night": "1"})
    assert (made.object, made.endpoint, made.completion_window, made.metadata) == ("batch", CHAT, "24h", {"night": "1"})
    assert (made.status, made.errors, made.output_file_id) == ("in_progress", None, None)
    assert made.expires_at == made.created_at + 86400
    batch = await ended(stock, made.id)
    assert batch.status == "completed"
    assert batch.request_counts.to_dict() == {"total": 3, "completed": 2, "failed": 1}
    output = await lines_in(stock, batch.output_file_id)
    assert [line["custom_id"] for line in output] == ["r1", "r2"]
    replies = [line["response"]["body"] for line in output]
    assert replies[0]["choices"][0]["message"]["content"] == "The final answer"
    assert replies[0]["fusion"]["ensemble"] == "default"
    assert replies[1]["object"] == "chat.completion"
    assert all(set(line) == {"id", "custom_id", "response", "error"} for line in output)
    (error,) = await lines_in(stock, batch.error_file_id)
    assert (error["custom_id"], error["response"]["status_code"], error["error"]) == ("r3", 400, None)
    assert error["response"]["body"]["error"]["param"]
    files = {each.id: each.purpose async for each in stock.files.list()}
    assert files == {
        made.input_file_id: "batch",
        batch.output_file_id: "batch_output",
        batch.error_file_id: "batch_output",
    }


@pytest.mark.parametrize(
    ("endpoint", "wanted", "kind"),
    [
        ("/v1/responses", {"model": "cappella/default", "input": "Hi"}, "response"),
        ("/v1/messages", body(max_tokens=9), None),
        ("/v1/completions", {"model": "ann", "prompt": "Hi"}, "text_completion"),
    ],
)
async def test_each_endpoint_has_batches(stock: AsyncOpenAI, endpoint: str, wanted: Any, kind: str | None) -> None:
    batch = await ended(stock, (await create(stock, [wanted], endpoint)).id)
    (line,) = await lines_in(stock, batch.output_file_id or batch.error_file_id)
    assert line["response"]["body"].get("object") == kind, line


@pytest.mark.parametrize(
    ("endpoint", "wanted", "key", "count"),
    [
        ("/v1/embeddings", {"model": "emb", "input": ["a", "b"]}, "data", 2),
        ("/v1/rerank", {"model": "rank", "query": "q", "documents": ["aa", "b"]}, "results", 2),
        ("/v1/score", {"model": "rank", "queries": "q", "documents": ["aa", "b"]}, "data", 2),
        ("/classify", {"model": "rm", "input": "Hi"}, "data", 1),
    ],
)
async def test_models_that_write_nothing_have_batches(
    fake_engines: FakeEngines, tmp_path: Path, endpoint: str, wanted: Any, key: str, count: int
) -> None:
    await add_pooling(fake_engines, tmp_path)
    of_batches, config = batch_config(tmp_path), pooling_config()
    weights = of_batches.models["ann"].weights  # type: ignore[union-attr]
    models = {name: model.model_copy(update={"weights": weights}) for name, model in config.models.items()}
    config = config.model_copy(update={"models": models, "server": of_batches.server})
    async with serving(fake_engines, config) as url, client(url) as stock:
        failed = await create(stock, [body(model="ann")], endpoint)
        assert [each.code for each in failed.errors.data] == ["wrong_task"]
        batch = await ended(stock, (await create(stock, [wanted], endpoint)).id)
        (line,) = await lines_in(stock, batch.output_file_id or batch.error_file_id)
    assert (line["response"]["status_code"], len(line["response"]["body"].get(key, ""))) == (200, count), line


async def test_a_file_with_mistakes_fails_and_names_them(stock: AsyncOpenAI) -> None:
    good = lines_of([body("one")])[0]
    bad = [b"{\n", lines_of([body(model="nobody")])[0].replace(b"r1", b"r2"), good]
    file = await upload(stock, good + b"".join(bad))
    wanted: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    made = await stock.batches.create(**wanted)
    assert (made.status, made.request_counts.total if made.request_counts else None) == ("failed", 0)
    assert made.failed_at
    assert made.errors
    told = [(each.line, each.code, each.param) for each in made.errors.data or ()]
    mistakes = [
        (2, "invalid_json_line", None),
        (3, "model_not_found", "body.model"),
        (4, "duplicate_custom_id", "custom_id"),
    ]
    assert told == mistakes
    assert made.errors.object == "list"
    await stock.files.delete(file.id)
    with pytest.raises(openai.ConflictError, match="failed"):
        await stock.batches.cancel(made.id)


async def test_a_row_that_is_nested_too_deeply_fails(stock: AsyncOpenAI) -> None:
    deep = lines_of([body("DEEP")])[0].replace(b'"DEEP"', b"[" * 300 + b"]" * 300)
    file = await upload(stock, deep)
    wanted: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h"}
    made = await stock.batches.create(**wanted)
    assert made.errors
    assert [(each.line, each.code, each.param) for each in made.errors.data or ()] == [(1, "too_large", "body")]


async def test_too_many_rows_fail(stock: AsyncOpenAI) -> None:
    made = await create(stock, [body()] * 6)
    assert [each.code for each in made.errors.data] == ["too_many_rows"]


async def test_a_cancelled_batch_tells_of_each_row(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    hold(fake_engines)
    made = await create(stock, [body("one"), body("two")])
    assert await eventually(lambda: fake_engines.running > 0)
    cancelled = await stock.batches.cancel(made.id)
    assert cancelled.cancelling_at
    batch = await ended(stock, made.id)
    assert (batch.status, bool(batch.cancelled_at), batch.output_file_id) == ("cancelled", True, None)
    errors = await lines_in(stock, batch.error_file_id)
    assert [(each["custom_id"], each["error"]["code"]) for each in errors] == [
        ("r1", "batch_cancelled"),
        ("r2", "batch_cancelled"),
    ]
    fake_engines.release()


async def test_batches_are_listed_the_latest_first(stock: AsyncOpenAI) -> None:
    ids = [(await create(stock, [body()])).id for _ in range(3)]
    assert [each.id async for each in stock.batches.list(limit=2)] == ids[::-1]
    page = await stock.batches.list(limit=1, after=ids[2])
    assert ([each.id for each in page.data], page.has_more) == ([ids[1]], True)
    for wrong in ({"limit": 101}, {"after": "batch_0"}):
        with pytest.raises(openai.BadRequestError, match=next(iter(wrong))):
            await stock.batches.list(**wrong)


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"endpoint": "/v1/images/edits"}, "endpoint"),
        ({"completion_window": "24"}, "completion_window"),
        ({"completion_window": "31d"}, "completion_window"),
        ({"completion_window": "0h"}, "completion_window"),
        ({"input_file_id": 7}, "input_file_id"),
        ({"metadata": {str(each): "" for each in range(17)}}, "metadata"),
        ({"metadata": {"a": "x" * 513}}, "metadata.a"),
        ({"metadata": {"x" * 65: "a"}}, "metadata"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 60}}, "output_expires_after.seconds"),
    ],
)
async def test_a_wrong_field_is_named(stock: AsyncOpenAI, more: Any, param: str) -> None:
    file = await upload(stock, lines_of([body()])[0])
    wanted: Any = {"input_file_id": file.id, "endpoint": CHAT, "completion_window": "24h", **more}
    with pytest.raises(openai.BadRequestError) as raised:
        await stock.batches.create(**wanted)
    assert (raised.value.param or "").startswith(param)
    assert (await stock.batches.list()).data == []


async def test_windows_and_lifetimes_of_outputs(stock: AsyncOpenAI) -> None:
    made = await create(
        stock, [body()], completion_window="3d", output_expires_after={"anchor": "created_at", "seconds": 3600}
    )
    assert (made.completion_window, made.expires_at - made.created_at) == ("72h", 3 * 86400)
    batch = await ended(stock, made.id)
    output = await stock.files.retrieve(batch.output_file_id or "")
    assert output.expires_at == output.created_at + 3600


async def test_a_batch_is_of_its_key(fake_engines: FakeEngines, tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    keys = KeyStore(path)
    ann, bob, root = keys.create("ann", ["run"], ["ann"]), keys.create("bob", ["run"]), keys.create("root", ["admin"])
    async with batching(fake_engines, tmp_path, path) as url:
        async with client(url, ann) as stock:
            made = await ended(stock, (await create(stock, [body(model="ann")])).id)
            assert made.request_counts
            assert made.request_counts.completed == 1
            failed = await create(stock, [body(model="bob")])
            assert [each.code for each in failed.errors.data] == ["model_not_allowed"]
        async with client(url, bob) as stock:
            assert (await stock.batches.list()).data == []
            for other in (stock.batches.retrieve(made.id), stock.batches.cancel(made.id)):
                with pytest.raises(openai.NotFoundError) as raised:
                    await other
                assert raised.value.code == "batch_not_found"
        async with client(url, root) as stock:
            assert [each.id for each in (await stock.batches.list()).data] == [failed.id, made.id]


async def test_a_row_costs_no_request_of_its_minute_and_its_tokens_count(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    path = tmp_path / "keys.sqlite"
    keys = KeyStore(path)
    ann = keys.create("ann", ["run"], requests_per_minute=2)
    async with batching(fake_engines, tmp_path, path) as url, client(url, ann) as stock:
        batch = await ended(stock, (await create(stock, [body(str(number), model="ann") for number in range(5)])).id)
        assert batch.request_counts
        assert batch.request_counts.completed == 5
        with pytest.raises(openai.RateLimitError):
            await upload(stock, b"{}")
    (used,) = keys.usage().values()
    assert used.completion_tokens > 0
    assert batch.to_dict()["total_tokens"] == used.prompt_tokens + used.completion_tokens


async def test_other_weights_are_accepted_by_its_owner(
    fake_engines: FakeEngines, stock: AsyncOpenAI, store: BatchStore
) -> None:
    hold(fake_engines)
    made = await create(stock, [body()])
    store.pause(made.id, "It began with other weights.")
    shown: Any = (await stock.batches.retrieve(made.id)).to_dict()
    assert shown["progress"]["paused"] == "It began with other weights."
    with pytest.raises(openai.BadRequestError, match="accept_new_weights"):
        await stock.post(f"/batches/{made.id}/resume", cast_to=object, body={})
    accept = {"accept_new_weights": True}
    with pytest.raises(openai.ConflictError, match="does not wait"):
        await stock.post(f"/batches/{made.id}/resume", cast_to=object, body=accept)
    assert await eventually(lambda: fake_engines.running > 0)
    with pytest.raises(BatchRefused):
        await store.begin(made.id, "others")
    resumed: Any = await stock.post(f"/batches/{made.id}/resume", cast_to=object, body=accept)
    assert (resumed["id"], resumed["progress"]["paused"]) == (made.id, None)
    fake_engines.release()


@pytest.fixture
def store(fake_engines: FakeEngines, stock: AsyncOpenAI) -> BatchStore:
    store = fake_engines.reloader.state.batches
    assert store
    return store


async def test_replies_have_their_declared_types(fake_engines: FakeEngines, stock: AsyncOpenAI) -> None:
    failed = await create(stock, [body(stream=True)])
    done = await ended(stock, (await create(stock, [body()])).id)
    declared = openapi.document(keyed=False)["components"]["schemas"]
    async with aiohttp.ClientSession(str(stock.base_url).removesuffix("v1/")) as http:
        for path, name in (
            ("files", "Files"),
            (f"files/{done.input_file_id}", "FileObject"),
            ("batches", "Batches"),
            (f"batches/{done.id}", "BatchObject"),
            (f"batches/{failed.id}", "BatchObject"),
        ):
            async with http.get(f"/v1/{path}") as reply:
                value = await reply.json()
            TypeAdapter(openapi.REPLIES[name]).validate_python(value, strict=True)
            assert set(value) <= set(declared[name]["properties"])


async def test_actions_are_in_the_audit_log(fake_engines: FakeEngines, tmp_path: Path) -> None:
    config = batch_config(tmp_path)
    audit = Audit(file=tmp_path / "audit.jsonl")
    config = config.model_copy(update={"server": config.server.model_copy(update={"audit": audit})})
    async with serving(fake_engines, config) as url, client(url) as stock:
        made = await create(stock, [body()])
        await ended(stock, made.id)
        await stock.files.delete(made.input_file_id)
        with pytest.raises(openai.ConflictError):
            await stock.batches.cancel(made.id)
    written = [orjson.loads(line) for line in (tmp_path / "audit.jsonl").read_bytes().splitlines()]
    lines = [line for line in written if line["kind"] == "action"]
    assert [(line["action"], line["status"]) for line in lines] == [
        ("batch.create", "done"),
        ("file.delete", "done"),
        ("batch.cancel", "BatchRefused"),
    ]
    assert [line.get("batch", line.get("file")) for line in lines] == [made.id, made.input_file_id, made.id]
