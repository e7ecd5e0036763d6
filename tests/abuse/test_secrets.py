"""Secrets that no reply contains: other keys' models, paths on the machine, internal errors of engines."""

from pathlib import Path
from typing import Any

import aiohttp
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cappella.auth.keys import KeyStore
from support.fake_engines import FakeEngines, gateway_config, serving
from support.scripted_engine import Script
from support.strict_gateway import with_keys

USER = [{"role": "user", "content": "Hi"}]


async def ask(url: str, key: str | None = None, path: str = "/v1/chat/completions", **body: Any) -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with aiohttp.ClientSession(headers=headers) as http, http.post(url + path, json=body) as reply:
        return reply.status, await reply.text()


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyStore, str]:
    store = KeyStore(tmp_path_factory.mktemp("keys") / "keys.sqlite")
    return store, store.create("ann", ["run"])


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=40)


@settings(suppress_health_check=list(HealthCheck))
@given(ANY_TEXT | st.tuples(ANY_TEXT, ANY_TEXT).map(lambda two: f"ck_{two[0]}_{two[1]}"), st.integers(0, 60))
def test_no_text_but_the_key_is_a_key(store: tuple[KeyStore, str], text: str, at: int) -> None:
    known, key = store
    assert known.find(text) is None
    for changed in (key[:at] + text + key[at:], key[:at] + text + key[at + 1 :]):
        found = known.find(changed)
        assert (found is not None) == (changed == key)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"])
async def test_a_key_does_not_see_models_that_it_may_not_call(
    fake_engines: FakeEngines, tmp_path: Path, path: str
) -> None:
    key = KeyStore(tmp_path / "keys.sqlite").create("ann", ["run"], models=["cappella/default"])
    async with serving(fake_engines, with_keys(gateway_config(), tmp_path / "keys.sqlite")) as url:
        status, text = await ask(url, key, path, model="nobody", messages=USER)
        assert status == 404
        assert "cappella/default" in text
        assert not any(name in text for name in ("judge", "bob", "cappella/fixed"))


@pytest.mark.parametrize("model", ["ann", "cappella/default"])
async def test_no_reply_has_the_address_of_an_engine(
    fake_engines: FakeEngines, gateway: str, tmp_path: Path, model: str
) -> None:
    for name in ("ann", "bob", "cat"):
        await fake_engines.servers[name].stop()
    status, text = await ask(gateway, model=model, messages=USER)
    assert status == 502
    assert "no connection" in text
    assert str(tmp_path) not in text
    assert ".sock" not in text


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
@pytest.mark.parametrize("model", ["ann", "cappella/default"])
async def test_no_reply_has_internal_errors_of_an_engine(
    fake_engines: FakeEngines, gateway: str, model: str, path: str
) -> None:
    fault = {"error": {"message": "KeyError in /opt/vllm/engine.py", "type": "InternalServerError", "param": None}}
    for name in ("ann", "bob", "cat"):
        fake_engines.let(name, Script(refuse=(500, fault)))
    status, text = await ask(gateway, path=path, model=model, messages=USER, max_tokens=9)
    assert status == 502
    assert "the engine answered 500" in text
    assert "/opt" not in text
