"""`/v1/messages/batches` as Anthropic's client uses it, over scripted engines."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from pydantic import TypeAdapter

from cappella.auth.keys import KeyStore
from cappella.batch import beginnings
from cappella.errors import BatchRefused
from cappella.gateway import openapi
from support.batch_clients import batching
from support.fake_engines import FakeEngines, eventually
from support.kept_gateway import hold
from support.scripted_engine import Json
from support.stored_batches import body

PATH = "/v1/messages/batches"
DEEP: Json = orjson.loads(b'{"a":' * 100 + b"1" + b"}" * 100)


def client(url: str, key: str = "none") -> Any:
    from anthropic import AsyncAnthropic

    return AsyncAnthropic(base_url=url, api_key=key, max_retries=0)


@pytest.fixture
async def url(fake_engines: FakeEngines, tmp_path: Path) -> AsyncIterator[str]:
    async with batching(fake_engines, tmp_path, section={"max_rows": 3, "max_file_bytes": "1MiB"}) as url:
        yield url


@pytest.fixture
async def stock(url: str) -> AsyncIterator[Any]:
    async with client(url) as stock:
        yield stock.messages.batches


def requests(*bodies: Json) -> list[Json]:
    return [{"custom_id": f"m{number}", "params": each} for number, each in enumerate(bodies, 1)]


def message(text: str = "Hi", **more: Any) -> Json:
    return body(text, max_tokens=99, **more)


async def ended(stock: Any, batch_id: str) -> Any:
    batch = await stock.retrieve(batch_id)

    async def look() -> bool:
        nonlocal batch
        batch = await stock.retrieve(batch_id)
        return bool(batch.processing_status == "ended")

    for _ in range(3000):
        if await look():
            return batch
        await eventually(lambda: False, 0.02)
    raise AssertionError(batch)


async def results(stock: Any, batch_id: str) -> list[Any]:
    return [each async for each in await stock.results(batch_id)]


async def test_a_batch_is_answered(stock: Any, tmp_path: Path) -> None:
    made = await stock.create(requests=requests(message("one"), message("é" * 400, model="nobody")))
    assert (made.type, made.results_url, made.ended_at, made.cancel_initiated_at) == ("message_batch", None, None, None)
    assert (made.expires_at - made.created_at).total_seconds() == 86400
    batch = await ended(stock, made.id)
    counts = batch.request_counts.to_dict()
    assert counts == {"processing": 0, "succeeded": 1, "errored": 1, "canceled": 0, "expired": 0}
    assert batch.ended_at >= batch.created_at
    good, bad = await results(stock, made.id)
    assert (good.custom_id, good.result.type) == ("m1", "succeeded")
    assert good.result.message.content[0].text == "The final answer"
    assert (bad.custom_id, bad.result.type, bad.result.error.type) == ("m2", "errored", "error")
    assert bad.result.error.error.type == "not_found_error"
    deleted = await stock.delete(made.id)
    assert (deleted.id, deleted.type) == (made.id, "message_batch_deleted")
    assert list((tmp_path / "batches").glob("file-*")) == []


async def test_a_batch_is_cancelled(fake_engines: FakeEngines, stock: Any) -> None:
    import anthropic

    hold(fake_engines)
    made = await stock.create(requests=requests(message(), message()))
    assert await eventually(lambda: fake_engines.running > 0)
    for early in (stock.delete(made.id), _raw_results(stock, made.id)):
        with pytest.raises(anthropic.ConflictError, match="has not ended"):
            await early
    assert (await stock.cancel(made.id)).cancel_initiated_at
    batch = await ended(stock, made.id)
    assert batch.request_counts.canceled == 2
    assert [each.result.type for each in await results(stock, made.id)] == ["canceled", "canceled"]
    fake_engines.release()


async def _raw_results(stock: Any, batch_id: str) -> Any:
    return await stock._client.get(f"{PATH}/{batch_id}/results", cast_to=object)


async def test_batches_are_listed_both_ways(stock: Any) -> None:
    import anthropic

    ids = [(await stock.create(requests=requests(message()))).id for _ in range(4)]
    assert [each.id async for each in stock.list(limit=2)] == ids[::-1]
    page = await stock.list(limit=2, before_id=ids[0])
    assert ([each.id for each in page.data], page.has_more) == ([ids[2], ids[1]], True)
    assert (page.first_id, page.last_id) == (ids[2], ids[1])
    rest = await page.get_next_page()
    assert ([each.id for each in rest.data], rest.has_more) == ([ids[3]], False)
    for wrong in ({"limit": 1001}, {"after_id": "msgbatch_0"}, {"before_id": ids[0], "after_id": ids[0]}):
        with pytest.raises(anthropic.BadRequestError):
            await stock.list(**wrong)


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ([], "at least one"),
        (requests(message()) * 2, r"requests\.1\.custom_id"),
        ([{"custom_id": "a b", "params": {}}], r"requests\.0\.custom_id"),
        ([{"custom_id": "a\n", "params": {}}], r"requests\.0\.custom_id"),
        ([{"params": {}}], r"requests\.0\.custom_id"),
        ([{"custom_id": "a"}], r"requests\.0\.params"),
        (requests(message(stream=True)), "streamed"),
        (requests(message(metadata=DEEP)), r"requests\.0\.params: The body is nested deeper"),
        (requests(*[message()] * 4), "max_rows"),
        (requests(message("x" * 300_000)), "max_body_bytes"),
        (requests(*[message("x" * 180_000)] * 2)[:1] * 9, "used twice"),
    ],
)
async def test_a_wrong_request_is_named_in_anthropics_form(url: str, tmp_path: Path, wanted: Any, said: str) -> None:
    import anthropic

    async with client(url) as stock:
        with pytest.raises(anthropic.APIStatusError, match=said) as raised:
            await stock.messages.batches.create(requests=wanted)
    assert raised.value.status_code == 400
    error: Any = raised.value.body
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert list((tmp_path / "batches").glob("file-*")) == []


async def test_nothing_is_left_of_a_batch_that_cannot_be_created(
    stock: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import anthropic

    monkeypatch.setattr(beginnings, "MAX_UNFINISHED", 0)
    with pytest.raises(anthropic.BadRequestError, match="have not ended"):
        await stock.create(requests=requests(message()))
    assert list((tmp_path / "batches").glob("file-*")) == []


async def test_halves_of_characters_and_huge_numbers_pass(url: str, stock: Any, fake_engines: FakeEngines) -> None:
    data = orjson.dumps({"requests": requests(message("HALF"))}).replace(b"HALF", rb"\ud83d")
    data = data.replace(b'"max_tokens":99', b'"max_tokens":99,"metadata":{"user_id":123456789012345678901234567890}')
    async with aiohttp.ClientSession() as http:
        async with http.post(url + PATH, data=data, headers={"Content-Type": "application/json"}) as reply:
            made = await reply.json()
            assert reply.status == 200, made
        async with http.post(url + PATH, data=data) as reply:
            assert reply.status == 415
    await ended(stock, made["id"])
    assert [each.custom_id for each in await results(stock, made["id"])] == ["m1"]


async def test_a_batch_is_of_its_key_and_its_api(fake_engines: FakeEngines, tmp_path: Path) -> None:
    import anthropic

    path = tmp_path / "keys.sqlite"
    ann, bob = (KeyStore(path).create(name, ["run"]) for name in ("ann", "bob"))
    async with batching(fake_engines, tmp_path, path) as url:
        async with client(url, ann) as stock:
            batches = stock.messages.batches
            made = await ended(batches, (await batches.create(requests=requests(message()))).id)
            for path_of in (f"/v1/batches/{made.id}", "/v1/files/x"):
                with pytest.raises(anthropic.NotFoundError):
                    await stock.get(path_of, cast_to=object)
            assert (await stock.get("/v1/files", cast_to=object))["data"] == []
        async with client(url, bob) as stock:
            batches = stock.messages.batches
            assert (await batches.list()).data == []
            for other in (batches.retrieve(made.id), batches.delete(made.id), batches.results(made.id)):
                with pytest.raises(anthropic.NotFoundError) as raised:
                    await other
                error: Any = raised.value.body
                assert error["error"]["type"] == "not_found_error"


async def test_other_weights_are_accepted(url: str, stock: Any, fake_engines: FakeEngines) -> None:
    hold(fake_engines)
    made = await stock.create(requests=requests(message()))
    assert await eventually(lambda: fake_engines.running > 0)
    store = fake_engines.reloader.state.batches
    assert store
    with pytest.raises(BatchRefused):
        await store.begin(made.id, "others")
    async with (
        aiohttp.ClientSession(url) as http,
        http.post(f"/v1/batches/{made.id}/resume", json={"accept_new_weights": True}) as reply,
    ):
        assert (reply.status, (await reply.json())["id"]) == (200, made.id)
    fake_engines.release()


async def test_replies_have_their_declared_types(url: str, stock: Any) -> None:
    made = await stock.create(requests=requests(message()))
    await ended(stock, made.id)
    async with aiohttp.ClientSession(url) as http:
        for path, name in ((PATH, "MessageBatches"), (f"{PATH}/{made.id}", "MessageBatch")):
            async with http.get(path) as reply:
                TypeAdapter(openapi.REPLIES[name]).validate_python(await reply.json(), strict=True)
