"""Stored runs: readable by their key, deleted after their retention time, with content only if configured."""

import asyncio
import sqlite3
import threading
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import aiohttp
import orjson
import pytest

from cappella import database
from cappella.auth.keys import KeyStore, Reader
from cappella.database import DAY_S
from cappella.errors import ConfigError
from cappella.telemetry import run_store
from cappella.telemetry.response_store import Events, ResponseStore, StoredResponse
from cappella.telemetry.run_store import Row, RunStore
from support.fake_engines import ANALYSIS, MEMBERS, FakeEngines, gateway_config, judge_script, serving
from support.found_passages import RATES, find
from support.recorded_gateway import SECRET, ask, client, recording_config
from support.scripted_engine import Script

ANY_KEY = Reader(True, None)


def row(run_id: str, age_s: float = 0.0, key_id: str | None = None, text: str = "{}") -> Row:
    return Row(run_id, key_id, time.time() - age_s, b'"' + run_id.encode() + b'"', text.encode())


async def test_a_stored_run_equals_its_reply_without_content(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, recording_config(tmp_path)) as http:
        reply = orjson.loads((await ask(http))[1])
        async with http.get(f"/api/runs/{reply['fusion']['run_id']}") as got:
            run = await got.json()
    assert run["fusion"] == {name: value for name, value in reply["fusion"].items() if name != "analysis"}
    assert run["usage"] == reply["usage"]
    assert (run["model"], run["status"], run["error"], run["key"]) == ("cappella/default", "ok", None, None)
    assert {"messages", "answer"} & set(run) == set()


@pytest.mark.parametrize("content", [False, True])
async def test_a_stored_run_has_passages_only_with_content(
    fake_engines: FakeEngines, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bool
) -> None:
    find(monkeypatch, RATES)
    fake_engines.let("judge", judge_script(Script(("28 [S1][S9]",))))
    async with client(fake_engines, recording_config(tmp_path, runs={"content": content})) as http:
        reply = orjson.loads((await ask(http))[1])
        async with http.get(f"/api/runs/{reply['fusion']['run_id']}") as got:
            text = await got.text()
    fusion = orjson.loads(text)["fusion"]
    assert (RATES.text in text, RATES.path in text, "sources" in fusion) == (content, content, content)
    assert fusion["source_counts"] == {"found": 1, "cited": 1}
    assert fusion["removed_citations"] == ["S9"]


async def test_a_run_stored_with_content_has_prompt_answers_and_analysis(
    fake_engines: FakeEngines, tmp_path: Path
) -> None:
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
async def test_a_failed_run_is_stored(fake_engines: FakeEngines, tmp_path: Path, content: bool) -> None:
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
    assert ("invalid chunk" in failed["bob"].get("error", "")) is content
    assert ("messages" in run) is content


async def test_a_key_sees_only_its_own_runs(fake_engines: FakeEngines, tmp_path: Path) -> None:
    keys = KeyStore(tmp_path / "keys.sqlite")
    ann, bob = keys.create("ann", ["run"]), keys.create("bob", ["run"])
    root, reader = keys.create("root", ["run", "admin"]), keys.create("reader", ["admin"])
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
        # The reply is the same for another key's run and for none.
        none = (await get(bob, "/run-000"))[1].replace(b"run-000", ids["ann"].encode())
        assert (status, body) == (404, none)
        assert orjson.loads(body)["error"]["code"] == "run_not_found"
        for path in ("", f"/{ids['ann']}"):
            assert (await get(None, path))[0] == 401


async def test_without_a_run_store_the_error_names_the_config_key(fake_engines: FakeEngines) -> None:
    async with serving(fake_engines, gateway_config()) as url, aiohttp.ClientSession(url) as http:
        for path in ("/api/runs", "/api/runs/run-1"):
            async with http.get(path) as reply:
                body = await reply.json()
            assert (reply.status, body["error"]["code"]) == (404, "runs_not_kept")
            assert "server.runs" in body["error"]["message"]


async def test_the_list_has_a_limit_and_rejects_other_parameters(fake_engines: FakeEngines, tmp_path: Path) -> None:
    async with client(fake_engines, recording_config(tmp_path)) as http:
        for _ in range(3):
            await ask(http)
        async with http.get("/api/runs?limit=2") as reply:
            assert len((await reply.json())["data"]) == 2
        for query in ("limit=0", "limit=1001", "limit=-1", "limit=ten", "limit=99999999", "limit=", "offset=2"):
            async with http.get(f"/api/runs?{query}") as reply:
                assert (reply.status, (await reply.json())["error"]["param"]) == (400, query.split("=")[0])


@pytest.fixture
def _quick_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "PRUNE_S", 0.01)
    monkeypatch.setattr(database, "FIRST_PRUNE_S", 0.0)


@asynccontextmanager
async def pruned(path: Path, retention_days: float = 3) -> AsyncIterator[RunStore]:
    """A store that is being pruned."""
    store = RunStore(path, retention_days)
    pruning = asyncio.create_task(store.prune_forever())
    try:
        yield store
    finally:
        pruning.cancel()
        await asyncio.wait({pruning})
        store.close()


async def kept(path: Path, *rows: Row) -> None:
    """Store the rows in the file."""
    store = RunStore(path, retention_days=3)
    for each in rows:
        store.add(each)
    assert len(await store.recent(9, ANY_KEY)) == len(rows)
    store.close()


@pytest.mark.usefixtures("_quick_pruning")
async def test_old_runs_are_deleted_at_the_start_and_every_hour(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    old, new = row("run-old", 3 * DAY_S + 60, text='"Zebrafinch"'), row("run-new", 3 * DAY_S - 60)
    await kept(path, old, new, row("run-now"))
    async with pruned(path) as store:
        assert await gone(store, "run-old")
        assert await store.find("run-new", ANY_KEY) == b"{}"
        # No byte of it is left, neither in free pages nor in the write-ahead log.
        assert b"Zebrafinch" not in b"".join(each.read_bytes() for each in tmp_path.iterdir())
        store.add(row("run-old-2", 3 * DAY_S + 60))
        assert await gone(store, "run-old-2")


@pytest.mark.usefixtures("_quick_pruning")
async def test_old_responses_are_deleted_with_the_runs(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    await kept(path, row("run-now"))
    async with pruned(path) as store:
        responses = ResponseStore(store)
        for name, age_s in (("resp_old", 3 * DAY_S + 60), ("resp_new", 3 * DAY_S - 60)):
            await responses.create(partial(response, name, age_s))
        end = time.monotonic() + 5
        while await responses.find("resp_old", None) and time.monotonic() < end:
            await asyncio.sleep(0.01)
        assert await responses.find("resp_old", None) is None
        assert await responses.find("resp_new", None)


def response(name: str, age_s: float) -> StoredResponse:
    return StoredResponse(name, None, time.time() - age_s, "completed", [], {"id": name})


@pytest.mark.usefixtures("_quick_pruning")
@pytest.mark.parametrize("jumps", ["at the start", "later"])
async def test_a_clock_that_jumps_ahead_deletes_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, jumps: str
) -> None:
    path = tmp_path / "runs.sqlite"
    await kept(path, row("run-old", 4 * DAY_S), row("run-1", DAY_S), row("run-2"))
    now = time.time
    if jumps == "at the start":
        monkeypatch.setattr(time, "time", lambda: now() + 400 * DAY_S)
    async with pruned(path) as store:
        assert await gone(store, "run-old")
        monkeypatch.setattr(time, "time", lambda: now() + 400 * DAY_S)
        store.add(row("run-3"))
        store.add(row("run-older", 405 * DAY_S))
        # What is deleted now is deleted by the same clock.
        assert await gone(store, "run-older")
        for run_id in ("run-1", "run-2", "run-3"):
            assert await store.find(run_id, ANY_KEY) == b"{}"


@pytest.mark.usefixtures("_quick_pruning")
async def test_runs_of_a_clock_that_was_ahead_delete_no_others_once_it_is_right_again(tmp_path: Path) -> None:
    path = tmp_path / "runs.sqlite"
    await kept(path, row("run-old", 4 * DAY_S), row("run-1", DAY_S), row("run-ahead", -400 * DAY_S))
    async with pruned(path) as store:
        assert await gone(store, "run-old")
        assert await store.find("run-1", ANY_KEY) == b"{}"


@pytest.mark.parametrize("change", ["removed", "moved", "replaced"])
async def test_after_the_file_is_displaced_runs_go_to_a_new_one_which_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: str
) -> None:
    path = tmp_path / "runs.sqlite"
    store = RunStore(path, 1)
    store.add(row("run-1"))
    assert await store.find("run-1", ANY_KEY)
    if change == "replaced":
        RunStore(tmp_path / "other.sqlite", 1).close()
        (tmp_path / "other.sqlite").rename(path)
    elif change == "moved":
        path.rename(tmp_path / "moved.sqlite")
    else:
        path.unlink()
    store.add(row("run-2"))
    assert await store.find("run-2", ANY_KEY) == b"{}"
    assert await store.find("run-1", ANY_KEY) is None
    assert caplog.text.count("was removed, moved or replaced") == 1
    store.close()
    again = RunStore(path, 1)
    assert await again.find("run-2", ANY_KEY) == b"{}"
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600 or change == "replaced"


async def gone(store: RunStore, run_id: str) -> bool:
    end = time.monotonic() + 5
    while time.monotonic() < end:
        if await store.find(run_id, ANY_KEY) is None:
            return True
        await asyncio.sleep(0.01)
    return False


async def test_added_runs_are_visible_at_once_and_after_a_restart(tmp_path: Path) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1)
    for number in range(500):
        store.add(row(f"run-{number}"))
    assert await store.find("run-499", ANY_KEY) == b"{}"
    store.add(row("run-last"))
    store.close()
    assert (tmp_path / "runs.sqlite").stat().st_mode & 0o777 == 0o600
    again = RunStore(tmp_path / "runs.sqlite", 1)
    assert await again.find("run-last", ANY_KEY) == b"{}"
    assert len(await again.recent(1000, ANY_KEY)) == 501
    again.close()


@pytest.mark.parametrize("kind", ["garbage", "keys", "folder", "corrupt"])
def test_another_kind_of_file_is_named_and_left_unchanged(tmp_path: Path, kind: str) -> None:
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
    with pytest.raises(ConfigError, match=r"server\.runs\.file: .* cannot be used for runs .* Name a separate file"):
        RunStore(path, 1)
    assert before == (path.read_bytes() if path.is_file() else b"")


async def test_failing_writes_are_logged_once_and_block_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1)
    blocking = sqlite3.connect(tmp_path / "runs.sqlite")
    blocking.execute("DROP TABLE runs")
    blocking.commit()
    blocking.close()
    for number in range(3):
        store.add(row(f"run-{number}"))
        with pytest.raises(sqlite3.Error):
            await store.find("run-0", ANY_KEY)
    assert caplog.text.count("could not be stored") == 1
    store.close()


def blocked(store: RunStore) -> threading.Event:
    """Keeps the store's thread busy, as a slow disk does, until this is set."""
    go_on = threading.Event()
    store._thread.submit(go_on.wait)
    return go_on


async def test_what_waits_for_a_slow_disk_is_bounded_by_its_bytes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run_store, "MAX_QUEUED_BYTES", 100_000)
    store = RunStore(tmp_path / "runs.sqlite", 1)
    responses = ResponseStore(store)
    for _ in range(2):
        go_on = blocked(store)
        for number in range(9):
            store.add(row(f"run-{number}", text='"' + "x" * 30_000 + '"'))
            responses.add(partial(response, f"resp_{number}", 0.0), 30_000)
        go_on.set()
        assert len(await store.recent(99, ANY_KEY)) == 2
        assert await responses.find("resp_0", None)
        assert await responses.find("resp_1", None) is None
        await store.call(lambda db: db.execute("DELETE FROM runs"))
        await responses.delete("resp_0", None)
    # Once for each time that the disk was too slow.
    assert caplog.text.count("are dropped") == 2
    store.add(row("run-large", text='"' + "x" * 200_000 + '"'))
    assert await store.find("run-large", ANY_KEY), "alone it may be larger"
    store.close()


async def test_a_response_that_is_stored_again_lets_the_next_failure_be_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1)
    responses = ResponseStore(store)
    for number in range(2):
        await store.call(lambda db: db.execute("ALTER TABLE responses RENAME TO away"))
        for _ in range(2):
            responses.add(partial(response, "resp_lost", 0.0), 0)
        await store.call(lambda db: db.execute("ALTER TABLE away RENAME TO responses"))
        assert caplog.text.count("could not be stored") == number + 1
        responses.add(partial(response, "resp_kept", 0.0), 0)
        assert await responses.find("resp_kept", None)
    store.close()


async def test_no_byte_of_a_deleted_response_is_left(tmp_path: Path) -> None:
    def files() -> bytes:
        return b"".join(each.read_bytes() for each in tmp_path.iterdir())

    store = RunStore(tmp_path / "runs.sqlite", 1)
    responses = ResponseStore(store)
    other = {"id": "resp_2", "output": [{"text": "Bellbird"}]}
    said = StoredResponse("resp_1", None, time.time(), "queued", [{"text": "Zebrafinch" * 2000}], {"id": "resp_1"})
    await responses.create(lambda: said)
    responses.add(lambda: StoredResponse("resp_2", None, time.time(), "completed", [], other), 0)
    responses.finish("resp_1", {"status": "completed", "output": [{"text": "Zebrafinch"}]})
    responses.add_events("resp_1", Events(0, 0, [b"Zebrafinch\n\n"]))
    assert await responses.events("resp_1", 0)
    assert b"Zebrafinch" in files()
    packed = zlib.compress(b"Zebrafinch\n\n", 1)
    assert packed in files()
    assert await responses.delete("resp_1", None)
    # Events that were still on their way come too late.
    responses.add_events("resp_1", Events(1, 1, [b"Zebrafinch\n\n"]))
    assert await responses.events("resp_1", 0) is None
    assert (b"Zebrafinch" in files(), packed in files(), b"Bellbird" in files()) == (False, False, True)
    store.close()


async def test_a_poll_reads_no_conversation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = RunStore(tmp_path / "runs.sqlite", 1)
    responses = ResponseStore(store)
    said = StoredResponse("resp_1", None, time.time(), "completed", [{"text": "Zebrafinch"}], {"id": "resp_1"})
    await responses.create(lambda: said)
    asked: list[str] = []
    parsed: list[tuple[bytes, str]] = []
    loads = orjson.loads

    def noted(data: bytes) -> object:
        parsed.append((data, threading.current_thread().name))
        return loads(data)

    await store.call(lambda db: db.set_trace_callback(asked.append))
    monkeypatch.setattr(orjson, "loads", noted)
    assert await responses.find("resp_1", None)
    assert await responses.items("resp_1", None) == [{"text": "Zebrafinch"}]
    monkeypatch.undo()
    polled, listed = asked
    assert ("input" in polled, "input" in listed) == (False, True)
    assert [b"Zebrafinch" in data for data, _ in parsed] == [False, True]
    assert {name.startswith("traces") for _, name in parsed} == {True}, "the event loop goes on meanwhile"
    store.close()
