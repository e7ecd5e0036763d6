"""Batches on the disk: what is deleted is gone, what has expired goes, and a full disk or a kill loses nothing."""

import asyncio
import os
import sqlite3
import stat
import sys
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from cappella import database
from cappella.auth.keys import Reader
from cappella.batch import beginnings, files, folder
from cappella.batch.store import BatchStore
from cappella.batch.types import NewBatch, Purpose, RowEnd
from cappella.errors import BatchesUnavailable, BatchRefused, ConfigError, RequestError
from support.stored_batches import CHAT, body, content_of, good, stored_batch, stored_file
from support.stub_engine import environment

TESTS = Path(__file__).parents[1]
ANY = Reader(True, None)
INPUTS: tuple[Purpose, ...] = ("batch",)
SECRET = "Zebrafinch-4711"


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[BatchStore]:
    store = BatchStore(tmp_path / "batches")
    yield store
    store.close()


async def test_of_what_is_deleted_no_byte_is_left(store: BatchStore, tmp_path: Path) -> None:
    batch = await stored_batch(store, [body(SECRET)])
    (row,) = await store.rows_left(batch.id, 1)
    await store.keep_step(row, b"k", SECRET.encode())
    await store.end_row(row, good(SECRET))
    assert SECRET.encode() in every_byte(tmp_path)
    done = await store.finish(batch.id)
    assert done.output_file_id
    for file_id in (batch.input_file_id, done.output_file_id):
        await store.files.delete(file_id)
    assert SECRET.encode() not in every_byte(tmp_path)


def every_byte(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


async def test_what_has_expired_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FIRST_PRUNE_S", 0.0)
    monkeypatch.setattr(database, "PRUNE_S", 0.01)
    store = BatchStore(tmp_path, retention_days=1e-9)
    running, ended = [await stored_batch(store, [body()]) for _ in range(2)]
    await store.cancel(ended.id)
    await store.finish(ended.id)
    short = await stored_file(store, b"x", lifetime_s=0.0)
    assert await store.files.find(short.id, ANY, "batch") is None
    pruning = asyncio.create_task(store.prune_forever())
    async with asyncio.timeout(20):
        while store.files.path_of(short.id).exists() or await store.find(ended.id, ANY, "openai"):
            await asyncio.sleep(0.01)
    pruning.cancel()
    assert await store.find(running.id, ANY, "openai")
    assert len(await store.rows_left(running.id, 1)) == 1
    store.close()


async def test_the_input_of_a_batch_of_messages_that_never_came_is_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "FIRST_PRUNE_S", 0.0)
    monkeypatch.setattr(database, "PRUNE_S", 0.01)
    store = BatchStore(tmp_path)
    lost, new = [await stored_file(store, b"x", purpose="messages") for _ in range(2)]
    running = await stored_batch(store, [body()], api="anthropic")
    hour_ago = "UPDATE files SET created_at = created_at - 3700 WHERE id <> ?"
    await store._folder.call(lambda db: db.execute(hour_ago, (new.id,)))
    pruning = asyncio.create_task(store.prune_forever())
    async with asyncio.timeout(20):
        while store.files.path_of(lost.id).exists():
            await asyncio.sleep(0.01)
    pruning.cancel()
    assert store.files.path_of(new.id).exists()
    assert store.files.path_of(running.input_file_id).exists()
    store.close()


async def test_the_end_of_a_batch_of_messages_and_of_its_input_are_one(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = await stored_batch(store, [body()], api="anthropic")
    monkeypatch.setattr(store.files, "delete", _no_space)
    await store.finish(batch.id)
    assert await store.files.find(batch.input_file_id, ANY, "messages") is None
    assert not store.files.path_of(batch.input_file_id).exists()


async def test_what_cannot_be_deleted_is_the_next_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "FIRST_PRUNE_S", 0.0)
    monkeypatch.setattr(database, "PRUNE_S", 0.01)
    store = BatchStore(tmp_path)
    first, second = [await stored_file(store, b"x", lifetime_s=0.0) for _ in range(2)]
    tries: list[str] = []
    delete = store.files.delete

    async def failing(file_id: str) -> None:
        tries.append(file_id)
        if len(tries) == 1:
            raise BatchesUnavailable("The disk is full.")
        if len(tries) == 3:
            raise BatchRefused("A batch reads it.")
        await delete(file_id)

    monkeypatch.setattr(store.files, "delete", failing)
    pruning = asyncio.create_task(store.prune_forever())
    async with asyncio.timeout(20):
        while any(store.files.path_of(each.id).exists() for each in (first, second)):
            await asyncio.sleep(0.01)
    pruning.cancel()
    assert tries == [first.id, second.id, first.id, first.id]
    store.close()


async def test_the_quota_of_a_key_counts_what_arrives(tmp_path: Path) -> None:
    unit = files.MIN_FILE_BYTES
    store = BatchStore(tmp_path, max_bytes_per_key=10 * unit)
    await stored_file(store, bytes(4 * unit), "a")
    async with store.files.uploading("a") as one, store.files.uploading("a") as two:
        await one.write(bytes(3 * unit))
        with pytest.raises(RequestError, match="max_bytes_per_key") as raised:
            await two.write(bytes(3 * unit + 1))
        assert raised.value.code == "quota_exceeded"
        await two.write(bytes(3 * unit))
        await one.keep("one", "batch", 60.0)
        with pytest.raises(RequestError, match="max_bytes_per_key"):
            await two.write(b"1")
    await stored_file(store, bytes(10 * unit), "b")
    await stored_file(store, bytes(3 * unit), "a")
    assert len(list(tmp_path.glob("file-*"))) == 4
    store.close()


async def test_an_empty_file_counts_too(tmp_path: Path) -> None:
    store = BatchStore(tmp_path, max_bytes_per_key=3 * files.MIN_FILE_BYTES)
    await stored_file(store, b"", "a")
    async with store.files.uploading("a") as arriving:
        await arriving.write(b"1")
        await stored_file(store, b"", "a")
        with pytest.raises(RequestError, match="max_bytes_per_key"):
            await stored_file(store, b"", "a")
    await stored_file(store, b"1", "a")
    with pytest.raises(RequestError, match="max_bytes_per_key"):
        await stored_file(store, b"", "a")
    assert len(list(tmp_path.glob("file-*"))) == 3
    store.close()


async def test_of_the_failed_batches_of_a_key_the_oldest_go(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "MAX_FAILED", 2)
    file = await stored_file(store, b"x", "a")
    running, other = await stored_batch(store, [body()], "a"), await stored_batch(store, [body()], "b")

    async def failing() -> str:
        new = NewBatch("a", "openai", CHAT, file.id, 60.0, errors=[{"code": "empty_file"}])
        return (await store.create(new)).id

    failed = [await failing() for _ in range(3)]
    listed = await store.listed(ANY, "openai", None, 9) or ()
    assert [each.id for each in listed] == [failed[2], failed[1], other.id, running.id]


async def test_nothing_is_left_of_an_upload_that_breaks_off(store: BatchStore, tmp_path: Path) -> None:
    async with store.files.uploading(None) as upload:
        await upload.write(bytes(2 << 20))
        assert list(tmp_path.rglob("file-*"))
    assert not list(tmp_path.rglob("file-*"))


async def test_only_the_owner_reads_the_folder(store: BatchStore, tmp_path: Path) -> None:
    batch = await stored_batch(store, [body()])
    assert stat.S_IMODE((tmp_path / "batches").stat().st_mode) == 0o700
    for path in (tmp_path / "batches" / batch.input_file_id, tmp_path / "batches" / "batches.sqlite"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_full_disk_is_told_and_nothing_is_lost(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = await stored_batch(store, [body(), body()])
    row, other = await store.rows_left(batch.id, 2)
    await store.end_row(row, good())
    with pytest.MonkeyPatch.context() as full:
        full.setattr(os, "fsync", _no_space)
        with pytest.raises(BatchesUnavailable, match="No space left"):
            await store.finish(batch.id)
        with pytest.raises(BatchesUnavailable, match="No space left"):
            await stored_file(store, b"x")
    assert (await store.unfinished())[0].completed == 1
    await store.end_row(other, good())
    done = await store.finish(batch.id)
    assert len(await content_of(store, done.output_file_id)) == 2
    assert len(list(store.files.path_of("x").parent.glob("file-*"))) == 2


def _no_space(_: int) -> None:
    raise OSError(28, "No space left on device")


async def test_a_disk_that_is_full_after_the_commit_takes_nothing_back(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    gone = await stored_file(store, SECRET.encode())
    with monkeypatch.context() as full:
        full.setattr(folder, "truncate_log", _no_checkpoint)
        batch = await stored_batch(store, [body()])
        await store.end_row((await store.rows_left(batch.id, 1))[0], good())
        done = await store.finish(batch.id)
        await store.files.delete(gone.id)
    assert "lies there for a while (disk is full)" in caplog.text
    assert (done.status, len(await content_of(store, done.output_file_id))) == ("completed", 1)
    assert store.files.path_of(batch.input_file_id).exists()
    assert not store.files.path_of(gone.id).exists()


def _no_checkpoint(_: sqlite3.Connection) -> None:
    raise sqlite3.OperationalError("disk is full")


async def test_what_was_committed_stays_if_its_caller_is_cancelled_meanwhile(
    store: BatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_committed, may_go_on = threading.Event(), threading.Event()

    def wait(_: sqlite3.Connection) -> None:
        is_committed.set()
        may_go_on.wait()

    async with store.files.uploading(None) as upload:
        await upload.write(b"x")
        with monkeypatch.context() as waiting:
            waiting.setattr(folder, "truncate_log", wait)
            keeping = asyncio.create_task(upload.keep("in.jsonl", "batch", 60.0))
            await asyncio.to_thread(is_committed.wait)
            keeping.cancel()
            with pytest.raises(asyncio.CancelledError):
                await keeping
            may_go_on.set()
    (file,) = await store.files.listed(ANY, INPUTS, None, 9, True) or []
    assert b"".join([piece async for piece in store.files.pieces(file.id)]) == b"x"


async def test_a_full_database_refuses_and_goes_on(store: BatchStore) -> None:
    batch = await stored_batch(store, [body()])
    (row,) = await store.rows_left(batch.id, 1)

    def limit(db: sqlite3.Connection) -> None:
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages}")

    await store._folder.call(limit)
    with pytest.raises(BatchesUnavailable, match="full"):
        await store.end_row(row, RowEnd(200, "r", b'"' + b"x" * 100_000 + b'"'))
    await store._folder.call(lambda db: db.execute("PRAGMA max_page_count = 1000000"))
    assert await store.end_row(row, good())


async def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    BatchStore(tmp_path).close()
    own = "file-" + "0a" * 12
    names = {"file-list.csv", "file-0123", f"{own}.bak", f"x{own}"}
    for name in (*names, own, f"{own}.part"):
        (tmp_path / name).touch()
    (tmp_path / f"file-{'b' * 24}").mkdir()
    (tmp_path / f"file-{'c' * 24}").symlink_to(tmp_path / "file-list.csv")
    BatchStore(tmp_path).close()
    left = {path.name for path in tmp_path.iterdir() if "sqlite" not in path.name}
    assert left == {*names, f"file-{'b' * 24}", f"file-{'c' * 24}"}


async def test_another_server_cannot_use_the_folder(store: BatchStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another server uses it"):
        await asyncio.to_thread(BatchStore, tmp_path / "batches")


async def test_a_folder_that_cannot_be_used_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"server\.batch\.folder"):
        BatchStore(tmp_path / "file")
    other = tmp_path / "other"
    other.mkdir()
    db = sqlite3.connect(other / "batches.sqlite")
    db.execute("CREATE TABLE t (x)")
    db.close()
    with pytest.raises(ConfigError, match="another kind"):
        BatchStore(other)


async def test_a_killed_server_loses_no_row_that_had_ended(tmp_path: Path) -> None:
    store = BatchStore(tmp_path)
    batch = await stored_batch(store, [body(str(number)) for number in range(200)])
    store.close()
    command = [sys.executable, "-m", "support.killed_store", str(tmp_path), batch.id]
    process = await asyncio.create_subprocess_exec(*command, env=environment(TESTS), stdout=asyncio.subprocess.PIPE)
    assert process.stdout
    ended = [int(await process.stdout.readline()) for _ in range(20)]
    process.kill()
    ended += [int(line) for line in (await process.stdout.read()).splitlines(keepends=True) if line.endswith(b"\n")]
    await process.wait()
    (tmp_path / f"file-{'0123' * 6}.part").touch()
    again = BatchStore(tmp_path)
    left = [row.number for row in await again.rows_left(batch.id, 1000)]
    assert not set(ended) & set(left)
    assert len(left) + (await again.unfinished())[0].completed == 200
    assert not (tmp_path / f"file-{'0123' * 6}.part").exists()
    again.close()
