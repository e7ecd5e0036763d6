"""Batches in their store: each row ends once, and a batch is of its key."""

from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from cappella.auth.keys import Reader
from cappella.batch import beginnings, inputs
from cappella.batch.store import BatchStore
from cappella.batch.types import NewBatch, Purpose
from cappella.errors import BatchRefused, RequestError
from support.stored_batches import CHAT, bad, body, content_of, good, stored_batch

ANY = Reader(True, None)
INPUTS: tuple[Purpose, ...] = ("batch",)


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
