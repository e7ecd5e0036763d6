"""Batches and their rows in a folder: each finished call is one transaction, so that a killed server loses no other.

A row's request lies in the input file, its reply in the database until the batch ends and its result files are written.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import orjson

from cappella.auth.keys import Reader
from cappella.batch import beginnings, endings, inputs
from cappella.batch.files import FileStore
from cappella.batch.folder import Folder
from cappella.batch.progress import Progress
from cappella.batch.types import UNFINISHED, Api, Batch, NewBatch, NewRow, Row, RowEnd
from cappella.database import DAY_S, prune_forever
from cappella.errors import BatchesUnavailable, BatchRefused

_COLUMNS = (
    "id, key_id, api, endpoint, status, created_at, window_s, input_file_id, output_file_id, error_file_id, "
    "output_expires_s, metadata, errors, times, total, completed, failed, total_tokens, weights"
)
_OWN = "(? OR key_id IS ?)"
_ROW = "batch_id = ? AND number = ?"


class BatchStore:
    """The batches of one server; `files` are theirs. Its methods raise BatchesUnavailable.

    `changed` is set when there is something new to do: a batch was created, cancelled or let go on.
    """

    def __init__(self, folder: Path, retention_days: float = 30, max_bytes_per_key: int = 2 << 30) -> None:
        self.retention_s = retention_days * DAY_S
        self.changed = asyncio.Event()
        self.progress = Progress()
        self._paused: dict[str, str] = {}
        self._refused: dict[str, str] = {}
        self._folder = Folder(folder)
        self.files = FileStore(self._folder, max_bytes_per_key)

    async def create(self, new: NewBatch, rows: Sequence[NewRow] = ()) -> Batch:
        """Store a batch with its rows, in progress, or failed if it has errors. Raises RequestError and BatchRefused."""

        def work(db: sqlite3.Connection) -> Batch:
            return self._one(db, beginnings.insert(db, new, rows))

        batch = await self._folder.settle(work)
        self.changed.set()
        return batch

    async def find(self, batch_id: str, reader: Reader, api: Api) -> Batch | None:
        """The batch; None if there is none, or the reader may not see it."""
        query = f"SELECT {_COLUMNS} FROM batches WHERE id = ? AND api = ? AND {_OWN}"
        values = (batch_id, api, reader.sees_all, reader.key_id)
        row = await self._folder.call(lambda db: db.execute(query, values).fetchone())
        return self._batch(row) if row else None

    async def listed(
        self, reader: Reader, api: Api, after: str | None, limit: int, newer: bool = False
    ) -> list[Batch] | None:
        """A page of batches, newest first: those created before `after`, or, if `newer`, those after it.

        None if there is no batch `after`.
        """
        own = (api, reader.sees_all, reader.key_id)
        sign, order = (">", "ASC") if newer else ("<", "DESC")

        def work(db: sqlite3.Connection) -> list[Batch] | None:
            beyond, values = "", own
            if after is not None:
                query = f"SELECT rowid FROM batches WHERE id = ? AND api = ? AND {_OWN}"
                start = db.execute(query, (after, *own)).fetchone()
                if start is None:
                    return None
                beyond, values = f" AND rowid {sign} ?", (*own, *start)
            where = f"api = ? AND {_OWN}{beyond} ORDER BY rowid {order} LIMIT ?"
            found = [
                self._batch(row)
                for row in db.execute(f"SELECT {_COLUMNS} FROM batches WHERE {where}", (*values, limit))
            ]
            return found[::-1] if newer else found

        return await self._folder.call(work)

    async def unfinished(self) -> list[Batch]:
        """The batches that are in progress or cancelling, oldest first."""
        query = f"SELECT {_COLUMNS} FROM batches WHERE status IN (?, ?) ORDER BY rowid"
        return await self._folder.call(lambda db: [self._batch(row) for row in db.execute(query, UNFINISHED)])

    async def cancel(self, batch_id: str) -> Batch:
        """Begin to cancel it. Raises BatchRefused if it has ended."""

        def work(db: sqlite3.Connection) -> Batch:
            batch = self._one(db, batch_id)
            if batch.is_finished:
                raise BatchRefused(f"{batch_id} is {batch.status}: only a batch in progress can be cancelled.")
            if batch.status != "cancelling":
                endings.set_status(db, batch_id, "cancelling")
            return self._one(db, batch_id)

        self.go_on(batch_id)
        batch = await self._folder.call(work)
        self.changed.set()
        return batch

    async def delete(self, batch_id: str) -> None:
        """Delete it with its files; no byte is left. Raises BatchRefused if it has not ended."""

        def work(db: sqlite3.Connection) -> list[str]:
            if not self._one(db, batch_id).is_finished:
                raise BatchRefused(f"{batch_id} has not ended: cancel it first.")
            return endings.delete(db, batch_id)

        for file_id in await self._folder.settle(work):
            await self.files.delete(file_id)

    async def rows_left(self, batch_id: str, limit: int, after: int = 0) -> list[Row]:
        """Rows without an end, in the order of their ranks, which are greater than `after`.

        If the input file is gone, or a row in it cannot be read, they end with an error that says so.
        """

        def work(db: sqlite3.Connection) -> list[Row]:
            batch = self._one(db, batch_id)
            return inputs.rows_left(db, batch, self._folder.content(batch.input_file_id), limit, after)

        return await self._folder.call(work)

    async def end_row(self, row: Row, end: RowEnd) -> bool:
        """Store how a row has ended, once: False if it had already. Its steps are dropped."""
        set_end = f"UPDATE rows SET status_code = ?, request_id = ?, reply = ? WHERE {_ROW} AND status_code IS NULL"
        column = "completed" if end.is_ok else "failed"
        count = f"UPDATE batches SET {column} = {column} + 1, total_tokens = total_tokens + ? WHERE id = ?"
        place = (row.batch_id, row.number)

        def work(db: sqlite3.Connection) -> bool:
            if not db.execute(set_end, (end.status_code, end.request_id, end.body, *place)).rowcount:
                return False
            db.execute(count, (end.total_tokens, row.batch_id))
            db.execute(f"DELETE FROM steps WHERE {_ROW}", place)
            return True

        return await self._folder.call(work)

    async def find_step(self, row: Row, key: bytes) -> bytes | None:
        """What was kept of a step of this row."""
        query = f"SELECT value FROM steps WHERE {_ROW} AND key = ?"
        found = await self._folder.call(lambda db: db.execute(query, (row.batch_id, row.number, key)).fetchone())
        return found[0] if found else None

    async def steps(self, row: Row) -> dict[bytes, bytes]:
        """All that was kept of this row's steps, by their keys."""
        query = f"SELECT key, value FROM steps WHERE {_ROW}"
        return await self._folder.call(lambda db: dict(db.execute(query, (row.batch_id, row.number)).fetchall()))

    async def keep_step(self, row: Row, key: bytes, value: bytes) -> None:
        """Keep a step of a row that has no end yet."""
        query = (
            f"INSERT OR REPLACE INTO steps SELECT batch_id, number, ?, ? FROM rows WHERE {_ROW} AND status_code IS NULL"
        )
        values = (key, value, row.batch_id, row.number)
        await self._folder.call(lambda db: db.execute(query, values))

    async def row_secret(self, batch_id: str) -> bytes:
        """Random bytes of the batch, always the same, from which the nonces and seeds of its rows derive."""

        def work(db: sqlite3.Connection) -> bytes:
            self._one(db, batch_id)
            (secret,) = db.execute("SELECT secret FROM batches WHERE id = ?", (batch_id,)).fetchone()
            return bytes(secret)

        return await self._folder.call(work)

    async def begin(self, batch_id: str, weights: str) -> None:
        """Note the digest of the models' weights. Raises BatchRefused if it has begun with others, until they are accepted."""

        def work(db: sqlite3.Connection) -> None:
            known = self._one(db, batch_id).weights
            if known and known != weights:
                self._refused[batch_id] = weights
                raise BatchRefused(f"{batch_id} began with other weights than those that are served now.")
            self._refused.pop(batch_id, None)
            db.execute("UPDATE batches SET weights = ? WHERE id = ?", (weights, batch_id))

        await self._folder.call(work)

    async def accept_weights(self, batch_id: str) -> Batch:
        """Let it go on with the weights that `begin` refused; its rows without an end begin anew. Raises BatchRefused."""

        def work(db: sqlite3.Connection) -> Batch:
            batch = self._one(db, batch_id)
            if batch.is_finished or batch_id not in self._refused:
                raise BatchRefused(f"{batch_id} does not wait for anybody to accept other weights.")
            db.execute("UPDATE batches SET weights = ? WHERE id = ?", (self._refused[batch_id], batch_id))
            db.execute("DELETE FROM steps WHERE batch_id = ?", (batch_id,))
            return self._one(db, batch_id)

        batch = await self._folder.call(work)
        self.go_on(batch_id)
        self.changed.set()
        return replace(batch, paused=None)

    def pause(self, batch_id: str, why: str) -> None:
        """Tell, for as long as this server is up, why a batch does not go on. Not on the disk, which may be full."""
        self._paused[batch_id] = why

    def go_on(self, batch_id: str) -> None:
        """It goes on, or may try to."""
        self._paused.pop(batch_id, None)

    async def finish(self, batch_id: str) -> Batch:
        """Write the result files, and end it: completed if each row has an end, else cancelled or expired."""

        files = endings.ResultFiles(self._folder, self.retention_s)

        def work(db: sqlite3.Connection) -> Batch:
            batch = self._one(db, batch_id)
            if not batch.is_finished:
                files.write(db, batch)
            return self._one(db, batch_id)

        try:
            batch = await self._folder.settle(work, files.keep)
        finally:
            await self._folder.on_thread(files.close)
        self.go_on(batch_id)
        self._refused.pop(batch_id, None)
        self.progress.forget(batch_id)
        return batch

    async def prune_forever(self) -> None:
        """Delete what has expired, soon and then every hour, until cancelled."""
        newest = await self._folder.call(endings.newest)
        await prune_forever(newest, self._prune)

    def close(self) -> None:
        """Finish what is being written."""
        self._folder.close()

    async def _prune(self, now: float) -> None:
        """What cannot be deleted now, is in an hour: the folder logs why. Nothing keeps the rest from being deleted."""
        batches = partial(endings.expired_batches, created_before=now - self.retention_s)
        files = partial(endings.expired_files, now=now)
        for find, delete in ((batches, self.delete), (files, self.files.delete)):
            with suppress(BatchesUnavailable):
                # Also what a full disk has left in the log.
                for entry in await self._folder.settle(find):
                    with suppress(BatchesUnavailable, BatchRefused):
                        await delete(entry)

    def _one(self, db: sqlite3.Connection, batch_id: str) -> Batch:
        """Raises BatchRefused if it was deleted."""
        row = db.execute(f"SELECT {_COLUMNS} FROM batches WHERE id = ?", (batch_id,)).fetchone()
        if row is None:
            raise BatchRefused(f"{batch_id} was deleted.")
        return self._batch(row)

    def _batch(self, row: Sequence[Any]) -> Batch:
        named = dict(zip(_COLUMNS.split(", "), row, strict=True))
        parsed = {name: orjson.loads(named[name]) for name in ("metadata", "errors", "times")}
        return Batch(**{**named, **parsed}, paused=self._paused.get(named["id"]))
