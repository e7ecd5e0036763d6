"""Traces of runs: read by their owner, kept for as long as the config says, with content only where it says so."""

import asyncio
import sqlite3
import time
from pathlib import Path

import aiohttp
import orjson
import pytest

from cappella.auth.keys import KeyStore
from cappella.errors import ConfigError
from cappella.telemetry import run_store as traces_module
from cappella.telemetry.run_store import DAY_S, Reader, Row, RunStore
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, gateway_config, serving
from support.recorded_gateway import SECRET, ask, client, recording_config
from support.scripted_engine import Script

EVERYBODY = Reader(True, None)


def row(run_id: str, age_s: float = 0.0, key_id: str | None = None, text: str = "{}") -> Row:
    return Row(run_id, key_id, time.time() - age_s, b'"' + run_id.encode() + b'"', text.encode())


async def test_a_run_reads_as_its_reply_said_it_but_for_its_content(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, recording_config(tmp_path)) as http:
        reply = orjson.loads((await ask(http))[1])
        async with http.get(f"/api/runs/{reply['fusion']['run_id']}") as got:
            run = await got.json()
    assert run["fusion"] == {name: value for name, value in reply["fusion"].items() if name != "analysis"}
    assert run["usage"] == reply["usage"]
    assert (run["model"], run["status"], run["error"], run["key"]) == ("cappella/default", "ok", None, None)
    assert {"messages", "answer"} & set(run) == set()


async def test_with_content_it_has_all_that_was_said(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, recording_config(tmp_path, runs={"content": True})) as http:
        reply = orjson.loads((await ask(http))[1])
        async with http.get(f"/api/runs/{reply['fusion']['run_id']}") as got:
            run = await got.json()
    assert run["messages"] == [{"role": "user", "content": SECRET}]
    assert run["answer"]["content"] == "The final answer"
    assert run["fusion"]["analysis"] == reply["fusion"]["analysis"]
    assert run["fusion"]["analysis"]["consensus"] == ANALYSIS["consensus"]
    assert [answer["content"] for answer in run["fusion"]["responses"]] == ["Hello there"] * len(MEMBERS)


@pytest.mark.parametrize("content", [False, True])
async def test_a_run_that_failed_is_there_too(fake_engines: FakeEngines, tmp_path: Path, content: bool) -> None:
    for name in ("bob", "cat"):
        fake_engines.let(name, Script((SECRET,), ending="garbage"))
    async with client(fake_engines, recording_config(tmp_path, runs={"content": content})) as http:
        assert (await ask(http))[0] == 502
        async with http.get("/api/runs") as got:
            (short,) = (await got.json())["data"]
        async with http.get(f"/api/runs/{short['id']}") as got:
            run = await got.json()
    assert (short["status"], short["error"]) == ("failed", {"type": "InsufficientQuorum"})
    assert run["error"]["type"] == "InsufficientQuorum"
    assert ("the quorum is 2" in run["error"].get("message", "")) is content
    assert run["fusion"]["status"] == run["status"] == "failed"
    failed = {each["model"]: each for each in run["fusion"]["failed_models"]}
    assert failed["bob"]["reason"] == "engine_broke"
    assert ("no chunk" in failed["bob"].get("error", "")) is content
    assert ("messages" in run) is content


async def test_a_key_sees_only_its_own_runs(fake_engines: FakeEngines, tmp_path: Path) -> None:
    store = KeyStore(tmp_path / "keys.sqlite")
    ann, bob = store.create("ann", ["run"]), store.create("bob", ["run"])
    root, reader = store.create("root", ["run", "admin"]), store.create("reader", ["admin"])
    async with client(fake_engines, recording_config(tmp_path, keys=tmp_path / "keys.sqlite")) as http:

        async def get(key: str | None, path: str = "") -> tuple[int, bytes]:
            async with http.get(f"/api/runs{path}", headers={"x-api-key": key} if key else {}) as reply:
                return reply.status, await reply.read()

        async def listed(key: str) -> list[str]:
            return [run["id"] for run in orjson.loads((await get(key))[1])["data"]]

        ids = {}
        for name, key in (("ann", ann), ("bob", bob)):
            http.headers["x-api-key"] = key
            ids[name] = orjson.loads((await ask(http))[1])["fusion"]["run_id"]
        del http.headers["x-api-key"]
        assert await listed(ann) == [ids["ann"]]
        assert await listed(bob) == [ids["bob"]]
        assert await listed(root) == await listed(reader) == [ids["bob"], ids["ann"]]
        assert (await get(ann, f"/{ids['ann']}"))[0] == (await get(root, f"/{ids['ann']}"))[0] == 200
        status, body = await get(bob, f"/{ids['ann']}")
        # Another's run and none at all look alike.
        none = (await get(bob, "/run-000"))[1].replace(b"run-000", ids["ann"].encode())
        assert (status, body) == (404, none)
        assert orjson.loads(body)["error"]["code"] == "run_not_found"
        for path in ("", f"/{ids['ann']}"):
            assert (await get(None, path))[0] == 401


async def test_a_server_that_keeps_none_says_which_key_of_its_config_would(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, gateway_config()) as url, aiohttp.ClientSession(url) as http:
        for path in ("/api/runs", "/api/runs/run-1"):
            async with http.get(path) as reply:
                body = await reply.json()
            assert (reply.status, body["error"]["code"]) == (404, "runs_not_kept")
            assert "server.runs" in body["error"]["message"]


async def test_the_list_is_as_long_as_is_asked_for_and_nothing_else_can_be(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
    async with client(fake_engines, recording_config(tmp_path)) as http:
        for _ in range(3):
            await ask(http)
        async with http.get("/api/runs?limit=2") as reply:
            assert len((await reply.json())["data"]) == 2
        for query in ("limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=99999999", "limit=", "offset=2"):
            async with http.get(f"/api/runs?{query}") as reply:
                assert (reply.status, (await reply.json())["error"]["param"]) == (400, query.split("=")[0])


async def test_what_is_too_old_is_deleted_at_the_start_and_then_every_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "runs.sqlite"
    traces = RunStore(path, retention_days=3)
    traces.add(row("run-old", 3 * DAY_S + 60, text='"Zebrafinch"'))
    traces.add(row("run-new", 3 * DAY_S - 60))
    assert len(await traces.recent(9, EVERYBODY)) == 2
    traces.close()
    traces = RunStore(path, retention_days=3)
    monkeypatch.setattr(traces_module, "PRUNE_S", 0.01)
    recorder = asyncio.create_task(traces.keep())
    try:
        assert await gone(traces, "run-old")
        assert await traces.find("run-new", EVERYBODY) == b"{}"
        # Not a byte of it is left, neither in free pages nor in what SQLite writes ahead.
        assert b"Zebrafinch" not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
        traces.add(row("run-old-2", 3 * DAY_S + 60))
        assert await gone(traces, "run-old-2")
    finally:
        recorder.cancel()
        await asyncio.wait({recorder})
        traces.close()


async def gone(traces: RunStore, run_id: str) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if await traces.find(run_id, EVERYBODY) is None:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_what_was_added_is_there_for_who_asks_next_and_after_a_restart(tmp_path: Path) -> None:
    traces = RunStore(tmp_path / "runs.sqlite", 1)
    for number in range(500):
        traces.add(row(f"run-{number}"))
    assert await traces.find("run-499", EVERYBODY) == b"{}"
    traces.add(row("run-last"))
    traces.close()
    assert (tmp_path / "runs.sqlite").stat().st_mode & 0o777 == 0o600
    again = RunStore(tmp_path / "runs.sqlite", 1)
    assert await again.find("run-last", EVERYBODY) == b"{}"
    assert len(await again.recent(1000, EVERYBODY)) == 501
    again.close()


@pytest.mark.parametrize("kind", ["garbage", "keys", "folder", "corrupt"])
def test_a_file_that_is_not_ours_is_named_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "runs.sqlite"
    match kind:
        case "garbage":
            path.write_text("not a database, and long enough to be looked at as one" * 100)
        case "keys":
            KeyStore(path)
        case "folder":
            path.mkdir()
        case "corrupt":
            RunStore(path, 1).close()
            path.write_bytes(path.read_bytes()[:100] + b"\xff" * (path.stat().st_size - 100))
    before = path.read_bytes() if path.is_file() else b""
    with pytest.raises(ConfigError, match=r"server\.runs\.file: .* cannot be used for runs .* Name a file of its own"):
        RunStore(path, 1)
    assert before == (path.read_bytes() if path.is_file() else b"")


async def test_a_disk_that_takes_no_rows_is_told_once_and_holds_nothing_up(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    traces = RunStore(tmp_path / "runs.sqlite", 1)
    blocking = sqlite3.connect(tmp_path / "runs.sqlite")
    blocking.execute("DROP TABLE runs")
    blocking.commit()
    blocking.close()
    for number in range(3):
        traces.add(row(f"run-{number}"))
        with pytest.raises(sqlite3.Error):
            await traces.find("run-0", EVERYBODY)
    assert caplog.text.count("could not be kept") == 1
    traces.close()
