"""Prefix caches are shared between requests of one key alone: cached tokens tell nobody what others have asked."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth.keys import KeyStore
from cappella.config import Config
from support.batch_gateway import until, with_batches
from support.fake_engines import FakeEngines, gateway_config, serving
from support.scripted_pooling import add_pooling, pooling_config
from support.stored_batches import stored_batch
from support.strict_gateway import with_keys

SALT = "cache_salt"


def config(folder: Path, **server: Any) -> Config:
    whole = with_keys(gateway_config(), folder / "keys.sqlite")
    return whole.model_copy(update={"server": whole.server.model_copy(update=server)})


async def ask(url: str, key: str | None, path: str = "/v1/chat/completions", **body: Any) -> None:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession() as http, http.post(url + path, json=body, headers=headers) as reply:
        assert reply.status == 200, await reply.text()
        await reply.read()


HI = [{"role": "user", "content": "Hi"}]
DIRECT: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": HI},
    "/v1/completions": {"prompt": "Hi"},
    "/v1/responses": {"input": "Hi"},
    "/v1/messages": {"messages": HI, "max_tokens": 5},
}


def salts(fake_engines: FakeEngines) -> set[str | None]:
    return {body.get(SALT) for server in fake_engines.servers.values() for body in server.bodies}


async def test_every_call_of_a_key_has_its_salt_and_no_other_has_it(fake_engines: FakeEngines, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    ann, bob = store.create("ann", ["run"]), store.create("bob", ["run"])
    found = {}
    async with serving(fake_engines, config(tmp_path)) as url:
        for name, key in (("ann", ann), ("bob", bob)):
            for server in fake_engines.servers.values():
                server.bodies.clear()
            for path, body in DIRECT.items():
                for stream in (False, True):
                    await ask(url, key, path, model="ann", stream=stream, **body)
            # Panel, early prefill, analysis and final answer; a review and a choice; a stream.
            await ask(url, key, model="cappella/default", messages=[{"role": "user", "content": "Hi " * 3000}])
            await ask(
                url, key, model="cappella/default", messages=HI, fusion={"strategy": "select", "early_exit": "judge"}
            )
            await ask(url, key, model="cappella/default", messages=HI, stream=True)
            found[name] = salts(fake_engines)
    assert [len(each) for each in found.values()] == [1, 1]
    (first,), (second,) = found.values()
    assert None not in (first, second)
    assert first != second
    assert not any(part in first for part in ("ann", ann) if first)


async def test_a_members_body_keeps_its_bytes_before_the_salt(fake_engines: FakeEngines, tmp_path: Path) -> None:
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"])
    raw = b'{"model": "ann",  "messages": [{"role": "user", "content": "\\u00e9"}] }\n'
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    async with (
        serving(fake_engines, config(tmp_path)) as url,
        aiohttp.ClientSession() as http,
        http.post(f"{url}/v1/chat/completions", data=raw, headers=headers) as reply,
    ):
        assert reply.status == 200
    (sent,) = fake_engines.servers["ann"].raw
    assert sent.startswith(raw.rstrip().removesuffix(b"}").rstrip() + b',"cache_salt":"')


@pytest.mark.parametrize("how", ["off", "no keys"])
async def test_without_salt_all_share_what_is_cached(fake_engines: FakeEngines, tmp_path: Path, how: str) -> None:
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"]) if how == "off" else None
    settings = config(tmp_path, cache_salt="off") if how == "off" else gateway_config()
    async with serving(fake_engines, settings) as url:
        await ask(url, key, model="ann", messages=HI)
        await ask(url, key, model="cappella/default", messages=HI)
    assert salts(fake_engines) == {None}


async def test_a_client_may_not_choose_the_salt(fake_engines: FakeEngines, gateway: str) -> None:
    async with aiohttp.ClientSession() as http:
        for model in ("ann", "cappella/default"):
            body = {"model": model, "messages": HI, SALT: "of-another-key"}
            async with http.post(f"{gateway}/v1/chat/completions", json=body) as reply:
                assert (reply.status, SALT in reply.headers["x-cappella-ignored"]) == (200, True)
    asked = [each for server in fake_engines.servers.values() for each in server.bodies]
    assert asked
    assert all(each.get(SALT) != "of-another-key" for each in asked)


NEWER: dict[str, dict[str, Any]] = {
    "/api/chat": {"model": "ann", "messages": HI},
    "/api/generate": {"model": "cappella/default", "prompt": "Hi"},
    "/v1/embeddings": {"model": "emb", "input": "Hi"},
    "/v1/rerank": {"model": "rank", "query": "Hi", "documents": ["a", "b"]},
    "/v1/score": {"model": "rank", "text_1": "Hi", "text_2": ["a"]},
    "/classify": {"model": "rm", "input": "Hi"},
}
BY_MODEL: dict[str, Any] = {"model": "cappella/best", "messages": HI}


async def test_rows_of_batches_and_other_endpoints_have_the_salt_too(fake_engines: FakeEngines, tmp_path: Path) -> None:
    await add_pooling(fake_engines, tmp_path)
    store = KeyStore(tmp_path / "keys.sqlite")
    keys = {name: store.create(name, ["run"]) for name in ("ann", "bob")}
    found = {}
    settings = with_batches(with_keys(pooling_config(), tmp_path / "keys.sqlite"), tmp_path)
    async with serving(fake_engines, settings) as url:
        batches = fake_engines.reloader.state.batches
        assert batches
        for name, key in keys.items():
            for server in fake_engines.servers.values():
                server.bodies.clear()
            for path, body in NEWER.items():
                await ask(url, key, path, **body)
            await ask(url, key, **BY_MODEL)
            rows = [{"model": "ann", "messages": HI}, {"model": "cappella/default", "messages": HI}, BY_MODEL]
            batch = await stored_batch(batches, rows, key.split("_")[1])
            assert (await until(batches, batch, status="completed")).completed == len(rows)
            found[name] = salts(fake_engines)
    assert [len(each) for each in found.values()] == [1, 1]
    assert None not in found["ann"] | found["bob"]
    assert not found["ann"] & found["bob"]
