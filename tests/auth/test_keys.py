"""API keys: hashed, checked first, limited in models and rates, with their usage counted."""

import asyncio
import contextlib
import json
import os
import re
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cappella.auth import gatekeeper
from cappella.auth.keys import KeyStore, KeyUsage, stray_names
from cappella.config import Server
from cappella.errors import ConfigError
from support.command_line import cappella, start
from support.fake_engines import FakeEngines, eventually, gateway_config, judge_script, serving
from support.real_deployment import ROOT
from support.scripted_engine import Script

BODY = {"model": "cappella/default", "messages": [{"role": "user", "content": "Hi"}]}
Ask = Callable[..., Any]


@pytest.fixture
def store(tmp_path: Path) -> KeyStore:
    return KeyStore(tmp_path / "keys.sqlite")


@pytest.fixture
async def guarded(fake_engines: FakeEngines, store: KeyStore, tmp_path: Path) -> AsyncIterator[str]:
    config = gateway_config()
    server = config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        yield url


async def ask(url: str, key: str | None, path: str = "/v1/chat/completions", **fields: Any) -> tuple[int, Any]:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    session = aiohttp.ClientSession(headers=headers)
    async with session as http, http.post(f"{url}{path}", json={**BODY, **fields}) as reply:
        return reply.status, await reply.json() if reply.content_type == "application/json" else await reply.text()


async def get(url: str, path: str, key: str | None) -> tuple[int, str]:
    headers = {"x-api-key": key} if key else {}
    async with aiohttp.ClientSession(headers=headers) as http, http.get(f"{url}{path}") as reply:
        return reply.status, await reply.text()


def test_a_key_file_of_an_earlier_version_searches_all_documents(tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    text = KeyStore(path).create("ann", ["run"])
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("ALTER TABLE keys DROP COLUMN documents")
    found = KeyStore(path).find(text)
    assert found is not None
    assert found.may_search("handbook")


def test_a_key_searches_the_documents_that_it_names(tmp_path: Path) -> None:
    made = cappella("keys", "create", str(tmp_path / "k"), "ann", "--documents", "handbook, law").stdout.strip()
    found = KeyStore(tmp_path / "k").find(made)
    assert found is not None
    assert [found.may_search(name) for name in ("handbook", "law", "wages")] == [True, True, False]
    heading, row = cappella("keys", "list", str(tmp_path / "k")).stdout.splitlines()
    at = heading.index("documents")
    assert row[at:].startswith("handbook law")


def test_a_key_is_shown_once_and_kept_as_a_salted_hash(store: KeyStore, tmp_path: Path) -> None:
    first, second = store.create("ann", ["run"]), store.create("ann", ["run"])
    found = store.find(first)
    assert found is not None
    assert (found.name, found.scopes, found.models) == ("ann", ("run",), None)
    secret = first.split("_", 2)[2].encode()
    assert all(secret not in path.read_bytes() for path in tmp_path.iterdir())
    assert first != second
    assert (tmp_path / "keys.sqlite").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "change", [lambda k: k[:-1], lambda k: k + "x", lambda k: "xx" + k[2:], lambda k: "", str.upper]
)
def test_a_key_that_is_nearly_right_is_wrong(store: KeyStore, change: Callable[[str], str]) -> None:
    assert store.find(change(store.create("ann", ["run"]))) is None


def test_a_revoked_key_opens_nothing(store: KeyStore) -> None:
    key = store.create("ann", ["run"])
    (listed,) = store.all()
    assert store.revoke(listed.id)
    assert not store.revoke(listed.id)
    assert store.find(key) is None
    assert store.all()[0].revoked_at is not None


def test_an_invalid_key_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("not a database, and long enough to be looked at as one" * 100)
    with pytest.raises(ConfigError, match=r"server\.keys: .* cannot be used as a key file"):
        KeyStore(tmp_path / "keys")


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages", "/v1/completions"])
@pytest.mark.parametrize("key", [None, "ck_00000000_x", "nonsense"])
async def test_without_a_key_nothing_is_answered(
    guarded: str, fake_engines: FakeEngines, path: str, key: str | None
) -> None:
    status, body = await ask(guarded, key, path)
    assert status == 401
    assert body["error"].get("code", body["error"]["type"]) in ("invalid_api_key", "authentication_error")
    assert not any(server.bodies for server in fake_engines.servers.values())
    for each in ("/v1/models", "/ready", "/metrics"):
        assert (await get(guarded, each, key))[0] == 401
    assert (await get(guarded, "/health", None))[0] == 200


async def test_a_key_opens_what_its_scope_says(guarded: str, store: KeyStore) -> None:
    user, admin = store.create("ann", ["run"]), store.create("root", ["run", "admin"])
    assert (await ask(guarded, user))[0] == 200
    assert (await get(guarded, "/ready", user))[0] == 200
    status, text = await get(guarded, "/metrics", user)
    assert (status, "scope_missing" in text) == (403, True)
    assert (await get(guarded, "/metrics", admin))[0] == 200


async def test_a_key_calls_the_models_it_names_and_sees_no_others(guarded: str, store: KeyStore) -> None:
    key = store.create("ann", ["run"], models=["cappella/default"])
    assert (await ask(guarded, key))[0] == 200
    for fields in ({"model": "ann"}, {"model": "cappella/fixed"}):
        status, body = await ask(guarded, key, **fields)
        assert (status, body["error"]["code"]) == (403, "model_not_allowed")
    listed = json.loads((await get(guarded, "/v1/models", key))[1])["data"]
    assert [each["id"] for each in listed] == ["cappella/default"]


async def test_a_key_cannot_reach_a_model_through_an_ensemble(
    fake_engines: FakeEngines, store: KeyStore, tmp_path: Path
) -> None:
    config = gateway_config(panel=["ann", "bob"])
    server = config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})
    key = store.create("ann", ["run"], models=["cappella/default"])
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        assert (await ask(url, key, fusion={"analysis_models": ["bob", "ann"]}))[0] == 200
        status, body = await ask(url, key, fusion={"analysis_models": ["ann", "cat"]})
        assert (status, body["error"]["code"]) == (403, "model_not_allowed")


async def test_a_key_over_its_limit_is_told_when_to_retry(guarded: str, store: KeyStore) -> None:
    key, other = store.create("ann", ["run"], requests_per_minute=2), store.create("bob", ["run"])
    assert [(await ask(guarded, key))[0] for _ in range(3)] == [200, 200, 429]
    session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})
    async with session as http, http.post(f"{guarded}/v1/chat/completions", json=BODY) as reply:
        assert 1 <= int(reply.headers["Retry-After"]) <= 60
        assert (await reply.json())["error"]["code"] == "rate_limit_exceeded"
    assert (await ask(guarded, other))[0] == 200


@pytest.mark.parametrize("fields", [{}, {"model": "ann"}, {"model": "ann", "stream": True}])
async def test_tokens_over_the_limit_keep_the_next_request_waiting(
    guarded: str, store: KeyStore, fields: dict[str, Any]
) -> None:
    key = store.create("ann", ["run"], tokens_per_minute=1)
    assert [(await ask(guarded, key, **fields))[0] for _ in range(2)] == [200, 429]


async def leave_at(url: str, key: str, text: bytes, **fields: Any) -> None:
    """Disconnect from a stream once it has sent this text."""
    headers = {"Authorization": f"Bearer {key}"}
    body = {**BODY, "stream": True, **fields}
    session = aiohttp.ClientSession(headers=headers)
    async with session as http, http.post(f"{url}/v1/chat/completions", json=body) as reply:
        heard = b""
        while text not in heard:
            heard += await reply.content.readany()
        reply.close()


@pytest.mark.parametrize("model", ["cappella/default", "cappella/gated", "ann"])
async def test_a_client_that_leaves_before_the_end_pays_for_what_it_used(
    fake_engines: FakeEngines, store: KeyStore, tmp_path: Path, model: str
) -> None:
    config = gateway_config(gate={"mode": "rules", "model": "ann"})
    gated = config.ensembles["default"]
    ensembles = {"default": gateway_config().ensembles["default"], "gated": gated}
    server = config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})
    config = config.model_copy(update={"server": server, "ensembles": ensembles})
    key = store.create("ann", ["run"], tokens_per_minute=1)
    held = Script(("The", " whole", " answer"), ending="held")
    fake_engines.let("judge", judge_script(final=held))
    if model != "cappella/default":
        fake_engines.let("ann", held)
    async with serving(fake_engines, config) as url:
        await leave_at(url, key, b" answer", model=model)
        assert await eventually(lambda: fake_engines.running == 0)
        assert (await ask(url, key))[0] == 429
        async with aiohttp.ClientSession() as http, http.get(f"{url}/metrics", headers=operator(store)) as reply:
            text = await reply.text()
    used = store.usage()[store.all()[0].id]
    members = 6 if model == "cappella/default" else 0
    # Tokens of the aborted request are counted approximately.
    assert used.completion_tokens > members
    if model != "ann":
        assert used.prompt_tokens > 0
        wrote = "final" if model == "cappella/default" else "single"
        assert re.search(rf'cappella_tokens_total{{kind="completion",model="[a-z]+",role="{wrote}"}} [1-9]', text)


async def test_a_run_that_fails_is_paid_for(fake_engines: FakeEngines, guarded: str, store: KeyStore) -> None:
    for name in ("bob", "cat"):
        fake_engines.let(name, Script(ending="garbage"))
    key = store.create("ann", ["run"], tokens_per_minute=1)
    assert [(await ask(guarded, key))[0] for _ in range(2)] == [502, 429]


async def test_a_locked_key_file_delays_only_requests_with_keys(guarded: str, store: KeyStore, tmp_path: Path) -> None:
    key = store.create("ann", ["run"])
    with contextlib.closing(sqlite3.connect(tmp_path / "keys.sqlite")) as db:
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute("BEGIN EXCLUSIVE")
        waiting = asyncio.create_task(get(guarded, "/v1/models", key))
        for _ in range(3):
            assert (await get(guarded, "/health", None))[0] == 200
        assert not waiting.done()
    assert (await waiting)[0] == 200


def operator(store: KeyStore) -> dict[str, str]:
    return {"x-api-key": store.create("operator", ["admin"])}


async def test_what_a_key_used_is_kept(fake_engines: FakeEngines, store: KeyStore, tmp_path: Path) -> None:
    config = gateway_config()
    server = config.server.model_copy(update={"keys": tmp_path / "keys.sqlite"})
    key = store.create("ann", ["run"])
    async with serving(fake_engines, config.model_copy(update={"server": server})) as url:
        _, body = await ask(url, key)
        await ask(url, key, model="ann")
    used = store.usage()[store.all()[0].id]
    assert used.requests == 2
    assert used.prompt_tokens > body["fusion"]["usage"]["prompt_tokens"]
    store.add({store.all()[0].id: KeyUsage(1, 0, 0)})
    assert store.usage()[store.all()[0].id].requests == 3


def test_keys_are_made_listed_and_revoked_by_command(tmp_path: Path) -> None:
    path = str(tmp_path / "keys.sqlite")
    made = cappella("keys", "create", path, "ann", "--models", "cappella/default", "--requests-per-minute", "5")
    key = made.stdout.strip()
    found = KeyStore(tmp_path / "keys.sqlite").find(key)
    assert found is not None
    assert (found.models, found.requests_per_minute) == (("cappella/default",), 5)
    listed = cappella("keys", "list", path).stdout
    assert found.id in listed
    assert key.split("_", 2)[2] not in listed
    assert cappella("keys", "revoke", path, found.id).returncode == 0
    assert KeyStore(tmp_path / "keys.sqlite").find(key) is None
    again = cappella("keys", "revoke", path, found.id)
    assert (again.returncode, len(again.stderr.strip().splitlines())) == (2, 1)
    assert cappella("keys", "create", path, "ann", "--scope", "root").returncode == 2


async def test_ask_takes_its_key_from_the_environment(
    guarded: str, store: KeyStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = await asyncio.to_thread(cappella, "ask", "Hi", "--url", guarded)
    assert (refused.returncode, "This server requires a key" in refused.stderr) == (1, True)
    monkeypatch.setenv("CAPPELLA_KEY", store.create("ann", ["run"]))
    answered = await asyncio.to_thread(cappella, "ask", "Hi", "--url", guarded)
    assert (answered.returncode, answered.stdout) == (0, "The final answer\n")


@pytest.mark.parametrize(
    ("server", "says"),
    [
        ({"host": "0.0.0.0"}, "keys and tls must be set: anybody who reaches it may use every model and prompts"),
        ({"host": "0.0.0.0", "keys": "k"}, "tls must be set: prompts, answers and keys can be read"),
        ({"host": "10.0.0.5", "tls": {"certificate": "c", "private_key": "k"}}, "keys must be set: anybody"),
    ],
)
def test_a_host_that_is_not_loopback_needs_keys_and_tls_or_allow_open(server: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Server.model_validate(server)
    assert Server.model_validate({**server, "allow_open": True})


async def test_a_thousand_guesses_find_nothing(store: KeyStore) -> None:
    store.create("ann", ["run"])
    key_id = store.all()[0].id
    assert not any(store.find(f"ck_{key_id}_{guess}") for guess in range(1000))
    await asyncio.sleep(0)


async def test_usage_that_cannot_be_written_is_counted_later(
    store: KeyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(gatekeeper, "RETRY_S", 0.01)
    found = gatekeeper.Gatekeeper(store)
    key = store.find(store.create("ann", ["run"]))
    with sqlite3.connect(tmp_path / "keys.sqlite") as db:
        db.execute("ALTER TABLE usage RENAME TO away")
        writer = asyncio.create_task(found.write_usage())
        await found.admit(key, ["ann"])
        await found.count_tokens(key, 5, 7)
        assert await eventually(lambda: "cannot write the usage of keys" in caplog.text)
        db.execute("ALTER TABLE away RENAME TO usage")
    db.close()
    assert key
    assert await eventually(lambda: store.usage().get(key.id) == KeyUsage(1, 5, 7))
    writer.cancel()
    await asyncio.wait({writer})


@pytest.mark.parametrize("models", ["", " ", "ann,", ",ann"])
def test_a_blank_name_of_a_model_makes_no_key(tmp_path: Path, models: str) -> None:
    made = cappella("keys", "create", str(tmp_path / "keys"), "ann", "--models", models)
    assert (made.returncode, made.stdout, len(made.stderr.strip().splitlines())) == (2, "", 1)
    assert "blank name" in made.stderr
    assert not KeyStore(tmp_path / "keys").all()


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "bearer KEY"},
        {"Authorization": "BEARER  KEY"},
        {"Authorization": "KEY"},
        {"Authorization": "Bearer KEY", "x-api-key": "ck_00000000_wrong"},
        {"Authorization": "Bearer ck_00000000_wrong", "x-api-key": "KEY"},
        {"Authorization": "Basic cm9vdDpyb290", "x-api-key": "KEY"},
    ],
)
async def test_a_valid_key_is_found_in_either_header(guarded: str, store: KeyStore, headers: dict[str, str]) -> None:
    key = store.create("ann", ["run"])
    sent = {name: value.replace("KEY", key) for name, value in headers.items()}
    async with aiohttp.ClientSession(headers=sent) as http, http.get(f"{guarded}/v1/models") as reply:
        assert reply.status == 200


@pytest.mark.parametrize("fault", ["deleted", "overwritten", "emptied"])
async def test_a_broken_key_file_is_503_and_one_line(
    guarded: str, store: KeyStore, tmp_path: Path, caplog: pytest.LogCaptureFixture, fault: str
) -> None:
    key = store.create("ann", ["run"])
    path = tmp_path / "keys.sqlite"
    intact = path.read_bytes()
    for each in tmp_path.glob("keys.sqlite*"):
        each.unlink()
    if fault != "deleted":
        path.write_bytes(b"not a database " * 500 if fault == "overwritten" else b"")
    for _ in range(3):
        status, body = await ask(guarded, key)
        assert (status, body["error"]["code"]) == (503, "keys_unavailable")
    assert str(tmp_path) not in json.dumps(body)
    (line,) = [record for record in caplog.records if "no request with a key" in record.getMessage()]
    assert line.exc_info is None
    assert fault != "deleted" or not path.exists()
    path.write_bytes(intact)
    assert (await ask(guarded, key))[0] == 200


async def test_what_a_key_used_is_written_as_its_request_ends(store: KeyStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gatekeeper, "RETRY_S", 3600)
    found = gatekeeper.Gatekeeper(store)
    key = store.find(store.create("ann", ["run"]))
    assert key
    writer = asyncio.create_task(found.write_usage())
    for count in range(1, 4):
        await found.admit(key, ["ann"])
        await found.count_tokens(key, 5, 7)
        assert await eventually(lambda at=count: store.usage().get(key.id) == KeyUsage(at, 5 * at, 7 * at))  # type: ignore[misc]
    writer.cancel()
    await asyncio.wait({writer})


async def test_what_a_key_used_outlives_a_kill(fake_engines: FakeEngines, store: KeyStore, tmp_path: Path) -> None:
    key = store.create("ann", ["run"])
    arguments = [sys.executable, str(ROOT / "tests" / "support" / "attacked_gateway.py"), str(tmp_path)]
    paths = os.pathsep.join(str(ROOT / each) for each in ("runtime", "tests"))
    process = await asyncio.create_subprocess_exec(
        *arguments, stdout=asyncio.subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    )
    try:
        assert process.stdout
        port = int(await asyncio.wait_for(process.stdout.readline(), 60))
        assert (await ask(f"http://127.0.0.1:{port}", key, model="ann", stream=True))[0] == 200
        assert await eventually(lambda: [each.completion_tokens for each in store.usage().values()] == [2])
    finally:
        process.kill()
        await process.wait()
    assert next(iter(store.usage().values())) == KeyUsage(1, 10, 2)


def test_keys_that_name_what_the_config_lacks_are_told_and_left_as_they_are(store: KeyStore, tmp_path: Path) -> None:
    path = tmp_path / "keys.sqlite"
    store.create("ann", ["run"], ["cappella/default", "bob"], documents=["handbok"])
    store.create("bob", ["run"], ["cappella/defualt"], documents=["handbook"])
    store.create("all", ["admin"])
    store.revoke(KeyStore(path).all()[1].id)
    files = {each.name: each.stat().st_mtime_ns for each in tmp_path.iterdir()}
    (told,) = stray_names(path, ["cappella/default", "bob"], ["handbook"])
    assert "ann" in told
    assert "documents handbok" in told
    assert "models" not in told
    assert {each.name: each.stat().st_mtime_ns for each in tmp_path.iterdir()} == files
    assert stray_names(tmp_path / "none", [], []) == []


KEYED = {
    "models": {"ann": {"url": "http://127.0.0.1:1/v1", "max_model_len": 64}},
    "ensembles": {"default": {"panel": ["ann", "ann"], "judge": "ann", "analysis": "off"}},
    "server": {"keys": "k", "port": 0},
}


def test_check_warns_of_keys_that_name_what_the_config_lacks(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps(KEYED))
    assert cappella("check", tmp_path / "c.yaml").returncode == 0
    assert not (tmp_path / "k").exists()
    KeyStore(tmp_path / "k").create("eve", ["run"], ["ann"], documents=["handbok"])
    done = cappella("check", tmp_path / "c.yaml")
    assert done.returncode == 0
    assert "warning: the key eve" in done.stdout
    assert "documents handbok" in done.stdout


async def test_serve_warns_of_keys_that_name_what_the_config_lacks(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(json.dumps(KEYED))
    KeyStore(tmp_path / "k").create("eve", ["run"], ["ann"], documents=["handbok"])
    with (tmp_path / "said").open("w+b") as said:
        environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path)}
        server = await asyncio.to_thread(start, ["serve", str(tmp_path / "c.yaml")], [said.fileno()] * 3, environment)
        try:
            assert await eventually(lambda: "warning: the key eve" in (tmp_path / "said").read_text())
        finally:
            await asyncio.to_thread(server.kill)
