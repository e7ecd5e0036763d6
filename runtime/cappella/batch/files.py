"""Files of batches: uploaded, listed, read and deleted; what a key has may not grow beyond its quota."""

import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from pathlib import Path

from cappella.auth.keys import Reader
from cappella.batch.content import Content
from cappella.batch.folder import Folder
from cappella.batch.types import UNFINISHED, Purpose, StoredFile
from cappella.errors import BatchRefused, RequestError

MIN_FILE_BYTES = 4096
"""What an empty file counts, too: a file takes a block of the disk, and a row of the database."""
PIECE_BYTES = 1 << 20
"""What is written, or read, at a time."""
_COLUMNS = "id, key_id, purpose, filename, size_bytes, created_at, expires_at"
_OWN = "(? OR key_id IS ?)"
_IN_USE = f"input_file_id = ? AND status IN ({', '.join(repr(each) for each in UNFINISHED)})"


def new_file_id() -> str:
    return f"file-{secrets.token_hex(12)}"


def insert(db: sqlite3.Connection, file: StoredFile) -> None:
    values = (file.id, file.key_id, file.purpose, file.filename, file.size_bytes, file.created_at, file.expires_at)
    db.execute("INSERT INTO files VALUES (?,?,?,?,?,?,?)", values)


class FileStore:
    """The files in a folder; those of one key have `max_bytes_per_key` at most, with those that arrive."""

    def __init__(self, folder: Folder, max_bytes_per_key: int) -> None:
        self._folder = folder
        self._max_bytes_per_key = max_bytes_per_key
        self._arriving: Counter[str | None] = Counter()

    @asynccontextmanager
    async def uploading(self, key_id: str | None) -> AsyncIterator["Upload"]:
        """A file of this key that arrives; unless it is kept, nothing is left of it."""
        stored = await self._folder.call(lambda db: _bytes_of(db, key_id))
        upload = Upload(self, self._folder, key_id, stored)
        self.take(key_id, stored, MIN_FILE_BYTES)
        try:
            yield upload
        finally:
            self._arriving[key_id] -= max(upload.size_bytes, MIN_FILE_BYTES)
            await self._folder.on_thread(upload.content.close)

    def take(self, key_id: str | None, stored_bytes: int, count: int) -> None:
        """Let so many bytes of a key arrive. Raises RequestError if it would have too many then."""
        self.require_room(stored_bytes + self._arriving[key_id] + count)
        self._arriving[key_id] += count

    def require_room(self, size_bytes: int) -> None:
        """Raises RequestError if one key may not have so many bytes."""
        if size_bytes > self._max_bytes_per_key:
            limit = f"{self._max_bytes_per_key} bytes (server.batch.max_bytes_per_key)"
            raise RequestError(f"Your files would have more than {limit}: delete some.", "file", "quota_exceeded")

    async def find(self, file_id: str, reader: Reader, *purposes: Purpose) -> StoredFile | None:
        """The file; None if there is none for these purposes, the reader may not see it, or it has expired."""
        query = f"SELECT {_COLUMNS} FROM files WHERE id = ? AND {_OWN} AND expires_at > ?"
        values = (file_id, reader.sees_all, reader.key_id, time.time())
        row = await self._folder.call(lambda db: db.execute(query, values).fetchone())
        file = StoredFile(*row) if row else None
        return file if file and file.purpose in purposes else None

    async def listed(
        self, reader: Reader, purposes: Collection[Purpose], after: str | None, limit: int, ascending: bool
    ) -> list[StoredFile] | None:
        """A page of files, by their creation; None if there is no file `after`."""
        marks = ", ".join("?" * len(purposes))
        sign, order = (">", "ASC") if ascending else ("<", "DESC")

        def work(db: sqlite3.Connection) -> list[StoredFile] | None:
            beyond, values = "", [reader.sees_all, reader.key_id, time.time(), *purposes]
            if after is not None:
                start = db.execute(f"SELECT rowid FROM files WHERE id = ? AND {_OWN}", (after, *values[:2])).fetchone()
                if start is None:
                    return None
                beyond, values = f" AND rowid {sign} ?", [*values, start[0]]
            where = f"{_OWN} AND expires_at > ? AND purpose IN ({marks}){beyond}"
            query = f"SELECT {_COLUMNS} FROM files WHERE {where} ORDER BY rowid {order} LIMIT ?"
            return [StoredFile(*row) for row in db.execute(query, (*values, limit))]

        return await self._folder.call(work)

    async def delete(self, file_id: str) -> None:
        """No byte of it is left afterwards. Raises BatchRefused while a batch reads it."""

        def work(db: sqlite3.Connection) -> None:
            if found := db.execute(f"SELECT id FROM batches WHERE {_IN_USE}", (file_id,)).fetchone():
                raise BatchRefused(f"{found[0]} still reads {file_id}: cancel it, or wait for its end.")
            db.execute("DELETE FROM files WHERE id = ?", (file_id,))

        await self._folder.settle(work, lambda: self._folder.content(file_id).unlink(missing_ok=True))

    async def pieces(self, file_id: str) -> AsyncGenerator[bytes, None]:
        """The content. It goes on where the file is deleted meanwhile. Raises BatchesUnavailable."""
        content = await self._folder.on_thread(lambda: self._folder.content(file_id).open("rb"))
        try:
            while data := await self._folder.on_thread(lambda: content.read(PIECE_BYTES)):
                yield data
        finally:
            content.close()

    def path_of(self, file_id: str) -> Path:
        """Where the content lies."""
        return self._folder.content(file_id)


class Upload:
    """A file of one key that arrives; it is written piece by piece."""

    def __init__(self, files: FileStore, folder: Folder, key_id: str | None, stored_bytes: int) -> None:
        self.content = Content(folder, new_file_id())
        self.size_bytes = 0
        self._files = files
        self._folder = folder
        self._key_id = key_id
        self._stored_bytes = stored_bytes
        self._pending: list[bytes] = []

    async def write(self, data: bytes) -> None:
        """Raises RequestError beyond the quota, and BatchesUnavailable."""
        size_bytes = self.size_bytes + len(data)
        more = max(size_bytes, MIN_FILE_BYTES) - max(self.size_bytes, MIN_FILE_BYTES)
        self._files.take(self._key_id, self._stored_bytes, more)
        self.size_bytes = size_bytes
        self._pending.append(data)
        if self.size_bytes - self.content.size_bytes >= PIECE_BYTES:
            await self._folder.on_thread(self._flush)

    async def keep(self, filename: str, purpose: Purpose, lifetime_s: float) -> StoredFile:
        """Keep what has arrived as a file. Raises as `write`."""
        now = time.time()
        file = StoredFile(self.content.id, self._key_id, purpose, filename, self.size_bytes, now, now + lifetime_s)

        def work(db: sqlite3.Connection) -> None:
            # Others of this key may have come meanwhile.
            self._files.require_room(_bytes_of(db, self._key_id) + max(self.size_bytes, MIN_FILE_BYTES))
            self._flush()
            self.content.complete()
            insert(db, file)

        await self._folder.settle(work, self.content.keep)
        return file

    def _flush(self) -> None:
        pending, self._pending = self._pending, []
        self.content.write(b"".join(pending))


def _bytes_of(db: sqlite3.Connection, key_id: str | None) -> int:
    query = "SELECT coalesce(sum(max(size_bytes, ?)), 0) FROM files WHERE key_id IS ?"
    return int(db.execute(query, (MIN_FILE_BYTES, key_id)).fetchone()[0])
