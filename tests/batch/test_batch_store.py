"""Batches in their folder: each row ends once, whatever is killed; what is deleted is gone."""

import asyncio
import os
import sqlite3
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from cappella import database
from cappella.auth.keys import Reader
from cappella.batch import beginnings, files, folder, inputs
from cappella.batch.store import BatchStore
from cappella.batch.types import NewBatch, Purpose, RowEnd
from cappella.errors import BatchesUnavailable, BatchRefused, ConfigError, RequestError
from support.stored_batches import CHAT, bad, body, content_of, good, stored_batch, stored_file
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


async def test_rows_are_handed_out_in_the_order_of_their_ranks_page_by_page(store: BatchStore) -> None:
    batch = await stored_batch(store, [body(str(number)) for number in range(5)])
    first = await store.rows_left(batch.id, 2)
    assert [(row.number, row.custom_id, row.path) for row in first] == [(1, "r1", CHAT), (2, "r2", CHAT)]
    assert b'"content":"1"' in first[1].body
    await store.end_row(first[1], good())
    assert [row.number for row in await store.rows_left(batch.id, 9)] == [1, 3, 4, 5]
    assert [row.number for row in await store.rows_left(batch.id, 9, after=first[1].rank)] == [3, 4, 5]


async def test_pages_are_bounded_by_bytes_too(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "ROWS_BYTES", 300)
    batch = await stored_batch(store, [body("x" * 400), body("y"), body("z")])
    assert [row.number for row in await store.rows_left(batch.id, 9)] == [1]
    assert [row.number for row in await store.rows_left(batch.id, 9, after=1)] == [2, 3]


async def test_a_row_ends_once_and_its_steps_go(store: BatchStore) -> None:
    batch = await stored_batch(store, [body(), body()])
    row, other = await store.rows_left(batch.id, 2)
    await store.keep_step(row, b"k", b"value")
    await store.keep_step(row, b"k", b"again")
    await store.keep_step(row, b"l", b"more")
    assert await store.find_step(row, b"k") == b"again"
    assert await store.find_step(other, b"k") is None
    assert await store.steps(row) == {b"k": b"again", b"l": b"more"}
    assert [await store.end_row(row, good()), await store.end_row(row, bad())] == [True, False]
    await store.keep_step(row, b"k", b"late")
    assert await store.steps(row) == {}
    (batch,) = await store.unfinished()
    assert (batch.total, batch.completed, batch.failed, batch.total_tokens) == (2, 1, 0, 3)


async def test_results_are_in_the_order_of_the_input(store: BatchStore) -> None:
    batch = await stored_batch(store, [body(), body(), body()])
    rows = await store.rows_left(batch.id, 9)
    for row, end in zip(reversed(rows), (good("c"), bad(), good("a")), strict=True):
        await store.end_row(row, end)
    done = await store.finish(batch.id)
    assert (done.status, await store.unfinished()) == ("completed", [])
    assert list(done.times) == ["in_progress", "finalizing", "completed"]
    output, errors = await content_of(store, done.output_file_id), await content_of(store, done.error_file_id)
    assert [line["custom_id"] for line in output] == ["r1", "r3"]
    assert output[0]["response"] == {"status_code": 200, "request_id": "req-1", "body": {"answer": "a"}}
    assert output[0]["error"] is None
    assert [(line["custom_id"], line["response"]["status_code"]) for line in errors] == [("r2", 400)]
    assert len({line["id"] for line in output + errors}) == 3
    assert await store.finish(batch.id) == done


@pytest.mark.parametrize(("cancelled", "status"), [(True, "cancelled"), (False, "expired")])
async def test_rows_without_an_end_are_told_as_such(store: BatchStore, cancelled: bool, status: str) -> None:
    batch = await stored_batch(store, [body(), body()])
    await store.end_row((await store.rows_left(batch.id, 1))[0], good())
    if cancelled:
        assert (await store.cancel(batch.id)).status == "cancelling"
        assert (await store.cancel(batch.id)).status == "cancelling"
        assert [each.status for each in await store.unfinished()] == ["cancelling"]
    done = await store.finish(batch.id)
    assert done.status == status
    (line,) = await content_of(store, done.error_file_id)
    assert (line["custom_id"], line["response"], line["error"]["code"]) == ("r2", None, f"batch_{status}")
    with pytest.raises(BatchRefused, match=status):
        await store.cancel(batch.id)


async def test_a_batch_of_messages_has_one_file_of_results_and_keeps_no_input(store: BatchStore) -> None:
    batch = await stored_batch(store, [body(), body(), body()], api="anthropic")
    for row, end in zip(await store.rows_left(batch.id, 2), (good(), bad()), strict=True):
        await store.end_row(row, end)
    done = await store.finish(batch.id)
    assert [line["result"]["type"] for line in await content_of(store, done.output_file_id)] == [
        "succeeded",
        "errored",
        "expired",
    ]
    assert await store.files.find(batch.input_file_id, ANY, "batch") is None
    await store.delete(batch.id)
    assert [each.name for each in (store.files.path_of("x").parent).glob("file-*")] == []


async def test_rows_whose_file_is_gone_end_with_an_error(store: BatchStore) -> None:
    batch = await stored_batch(store, [body(), body()])
    await store.end_row((await store.rows_left(batch.id, 1))[0], good())
    store.files.path_of(batch.input_file_id).unlink()
    for _ in range(2):
        assert await store.rows_left(batch.id, 9) == []
    done = await store.finish(batch.id)
    assert (done.status, done.completed, done.failed) == ("completed", 1, 1)
    (line,) = await content_of(store, done.error_file_id)
    assert "removed" in line["response"]["body"]["error"]["message"]


async def test_a_row_that_cannot_be_read_ends_and_the_others_go_on(store: BatchStore) -> None:
    batch = await stored_batch(store, [body("x"), body("y"), body("z"), body("w")])
    path = store.files.path_of(batch.input_file_id)
    lines = path.read_bytes().splitlines(keepends=True)
    # As deep as it can be read, a line that is no JSON, and a file that is too short.
    deep = lines[0].replace(b'"x"', b"[" * 300 + b"]" * 300)
    lines = [deep, lines[1].replace(b"{", b" ", 1), lines[2], lines[3][:9]]
    starts = [sum(map(len, lines[:number])) for number in range(4)]
    path.write_bytes(b"".join(lines))
    places = [(start, len(line), number) for number, (start, line) in enumerate(zip(starts, lines, strict=True), 1)]
    await store._folder.call(lambda db: db.executemany("UPDATE rows SET offset=?, size_bytes=? WHERE number=?", places))
    (row,) = await store.rows_left(batch.id, 1)
    assert (row.number, b'"content":"z"' in row.body) == (3, True)
    await store.end_row(row, good())
    assert await store.rows_left(batch.id, 1) == []
    done = await store.finish(batch.id)
    assert (done.status, done.completed, done.failed) == ("completed", 1, 3)
    errors = [line["response"] for line in await content_of(store, done.error_file_id)]
    assert [each["status_code"] for each in errors] == [400, 400, 400]
    assert "cannot be read" in errors[0]["body"]["error"]["message"]


async def test_what_lies_beside_the_body_changes_nothing(store: BatchStore) -> None:
    batch = await stored_batch(store, [body("x")])
    path = store.files.path_of(batch.input_file_id)
    line = path.read_bytes().replace(b'"body"', b'"params":{"model":"secret"},"body"')
    path.write_bytes(line)
    await store._folder.call(lambda db: db.execute("UPDATE rows SET size_bytes = ?", (len(line),)))
    (row,) = await store.rows_left(batch.id, 1)
    assert orjson.loads(row.body) == body("x")


async def test_the_secret_of_a_batch_stays_the_same_and_is_its_own(tmp_path: Path) -> None:
    store = BatchStore(tmp_path)
    one, two = await stored_batch(store, [body()]), await stored_batch(store, [body()])
    secrets = [await store.row_secret(each.id) for each in (one, two)]
    store.close()
    again = BatchStore(tmp_path)
    assert [await again.row_secret(each.id) for each in (one, two)] == secrets
    assert secrets[0] != secrets[1]
    again.close()


async def test_other_weights_are_refused_until_they_are_accepted(store: BatchStore) -> None:
    batch = await stored_batch(store, [body()])
    (row,) = await store.rows_left(batch.id, 1)
    await store.begin(batch.id, "old")
    await store.begin(batch.id, "old")
    await store.keep_step(row, b"k", b"v")
    with pytest.raises(BatchRefused, match="other weights"):
        await store.begin(batch.id, "new")
    store.pause(batch.id, "other weights")
    assert (await store.unfinished())[0].paused == "other weights"
    store.changed.clear()
    assert (await store.accept_weights(batch.id)).paused is None
    assert store.changed.is_set()
    assert await store.steps(row) == {}
    assert (await store.unfinished())[0].weights == "new"
    await store.begin(batch.id, "new")
    with pytest.raises(BatchRefused, match="other weights"):
        await store.begin(batch.id, "third")


async def test_weights_are_accepted_only_where_others_were_refused(store: BatchStore) -> None:
    batch = await stored_batch(store, [body()])
    (row,) = await store.rows_left(batch.id, 1)
    await store.begin(batch.id, "old")
    await store.keep_step(row, b"k", b"v")
    with pytest.raises(BatchRefused, match="does not wait"):
        await store.accept_weights(batch.id)
    with pytest.raises(BatchRefused, match="other weights"):
        await store.begin(batch.id, "new")
    # The old ones are back.
    await store.begin(batch.id, "old")
    with pytest.raises(BatchRefused, match="does not wait"):
        await store.accept_weights(batch.id)
    assert (await store.unfinished())[0].weights == "old"
    assert await store.steps(row) == {b"k": b"v"}
    with pytest.raises(BatchRefused, match="other weights"):
        await store.begin(batch.id, "new")
    await store.cancel(batch.id)
    await store.finish(batch.id)
    with pytest.raises(BatchRefused, match="does not wait"):
        await store.accept_weights(batch.id)


async def test_a_batch_is_of_its_key(store: BatchStore) -> None:
    batch = await stored_batch(store, [body()], key_id="a")
    for reader, seen in (
        (Reader(False, "a"), True),
        (Reader(False, "b"), False),
        (Reader(False, None), False),
        (ANY, True),
    ):
        assert bool(await store.find(batch.id, reader, "openai")) is seen
        assert bool(await store.listed(reader, "openai", None, 9)) is seen
        assert bool(await store.files.find(batch.input_file_id, reader, "batch")) is seen
        assert bool(await store.files.listed(reader, INPUTS, None, 9, True)) is seen
    assert await store.find(batch.id, ANY, "anthropic") is None
    assert await store.files.find(batch.input_file_id, ANY, "batch_output") is None


async def test_lists_go_on_after_an_entry(store: BatchStore) -> None:
    made = [(await stored_batch(store, [body()])) for _ in range(4)]
    ids = [each.id for each in made]
    listed = [await store.listed(ANY, "openai", after, 2) for after in (None, ids[2])]
    assert [[each.id for each in page or ()] for page in listed] == [[ids[3], ids[2]], [ids[1], ids[0]]]
    newer = await store.listed(ANY, "openai", ids[0], 2, newer=True)
    assert [each.id for each in newer or ()] == [ids[2], ids[1]]
    assert await store.listed(ANY, "openai", "batch_0", 2) is None
    files = [each.input_file_id for each in made]
    page = await store.files.listed(ANY, INPUTS, files[1], 9, False)
    assert [each.id for each in page or ()] == [files[0]]


async def test_a_key_has_few_unfinished_batches(store: BatchStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "MAX_UNFINISHED", 1)
    batch = await stored_batch(store, [body()], key_id="a")
    with pytest.raises(RequestError, match="have not ended"):
        await stored_batch(store, [body()], key_id="a")
    await stored_batch(store, [body()], key_id="b")
    await store.cancel(batch.id)
    await store.finish(batch.id)
    await stored_batch(store, [body()], key_id="a")


async def test_a_file_that_a_batch_reads_is_not_deleted(store: BatchStore) -> None:
    batch = await stored_batch(store, [body()])
    with pytest.raises(BatchRefused, match=batch.id):
        await store.files.delete(batch.input_file_id)
    assert len(await store.rows_left(batch.id, 1)) == 1
    with pytest.raises(BatchRefused, match="cancel it first"):
        await store.delete(batch.id)
    await store.cancel(batch.id)
    await store.finish(batch.id)
    await store.files.delete(batch.input_file_id)
    new = NewBatch(None, "openai", CHAT, batch.input_file_id, 60.0)
    with pytest.raises(BatchRefused, match="was deleted"):
        await store.create(new)


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


async def test_what_was_committed_stays_if_its_caller_is_cancelled_meanwhile(store: BatchStore) -> None:
    async with store.files.uploading(None) as upload:
        await upload.write(b"x")
        keeping = asyncio.create_task(upload.keep("in.jsonl", "batch", 60.0))
        await asyncio.sleep(0)
        keeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await keeping
    (file,) = await store.files.listed(ANY, INPUTS, None, 9, True) or ()
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
