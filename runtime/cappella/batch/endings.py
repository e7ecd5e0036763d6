"""How batches end: their result files, and what is deleted with them or after its time. For the folder's thread."""

import sqlite3
import time
from collections.abc import Iterator

import orjson

from cappella.batch import results
from cappella.batch.content import Content
from cappella.batch.files import insert, new_file_id
from cappella.batch.folder import Folder
from cappella.batch.types import UNFINISHED, Batch, Purpose, RowEnd, Status, StoredFile

MAX_CREATION_S = 3600.0
"""The input of a batch of messages is stored, and then at once the batch."""
_RESULTS = "SELECT custom_id, status_code, request_id, reply FROM rows WHERE batch_id = ? ORDER BY number"
_UNFINISHED = f"({', '.join(repr(each) for each in UNFINISHED)})"


def set_status(db: sqlite3.Connection, batch_id: str, status: Status) -> None:
    """Note a status, and when it began."""
    query = "UPDATE batches SET status = ?, times = json_set(times, '$.' || ?, ?) WHERE id = ?"
    db.execute(query, (status, status, time.time(), batch_id))


class ResultFiles:
    """The result files of a batch: unless they are kept, nothing is left of them.

    With those of a batch of messages, its input is deleted: no client could do it.
    """

    def __init__(self, folder: Folder, retention_s: float) -> None:
        self._folder = folder
        self._retention_s = retention_s
        self._contents: dict[str, Content] = {}
        self._read: str | None = None

    def write(self, db: sqlite3.Connection, batch: Batch) -> None:
        """Write them, and end the batch: completed if each row has an end, else cancelled or expired."""
        left: results.Left = "cancelled" if batch.status == "cancelling" else "expired"
        is_openai = batch.api == "openai"
        is_whole = True
        for custom_id, end in _ends(db, batch.id):
            is_whole = is_whole and end is not None
            kind = "output" if not is_openai or (end and end.is_ok) else "error"
            self._content(kind).write(results.line(batch, custom_id, end, left))
        files = {kind: self._insert(db, batch, kind, content) for kind, content in self._contents.items()}
        query = "UPDATE batches SET output_file_id = ?, error_file_id = ? WHERE id = ?"
        db.execute(query, (files.get("output"), files.get("error"), batch.id))
        set_status(db, batch.id, "finalizing")
        set_status(db, batch.id, "completed" if is_whole and left != "cancelled" else left)
        _delete_rows(db, batch.id)
        if not is_openai:
            db.execute("DELETE FROM files WHERE id = ?", (batch.input_file_id,))
            self._read = batch.input_file_id

    def keep(self) -> None:
        for content in self._contents.values():
            content.keep()
        if self._read:
            self._folder.content(self._read).unlink(missing_ok=True)

    def close(self) -> None:
        for content in self._contents.values():
            content.close()

    def _content(self, kind: str) -> Content:
        if kind not in self._contents:
            self._contents[kind] = Content(self._folder, new_file_id())
        return self._contents[kind]

    def _insert(self, db: sqlite3.Connection, batch: Batch, kind: str, content: Content) -> str:
        content.complete()
        now = time.time()
        lifetime_s = min(batch.output_expires_s or self._retention_s, self._retention_s)
        purpose: Purpose = "batch_output" if batch.api == "openai" else "messages_output"
        name = f"{batch.id}_{kind}.jsonl"
        insert(db, StoredFile(content.id, batch.key_id, purpose, name, content.size_bytes, now, now + lifetime_s))
        return content.id


def delete(db: sqlite3.Connection, batch_id: str) -> list[str]:
    """Delete a batch; returns the ids of the files that go with it."""
    query = "DELETE FROM batches WHERE id = ? RETURNING api, input_file_id, output_file_id, error_file_id"
    _delete_rows(db, batch_id)
    api, *files = db.execute(query, (batch_id,)).fetchone()
    return [each for each in files if each] if api == "anthropic" else []


def give_up(db: sqlite3.Connection, batch_id: str) -> None:
    """End all rows that have no end, because their requests cannot be read any more."""
    message = "The input file of this batch was removed from the server's folder."
    _end_rows(db, batch_id, 500, _error(message, "server_error", "internal_error"))


def refuse_row(db: sqlite3.Connection, batch_id: str, number: int) -> None:
    """End a row whose request is no JSON object, or is nested too deeply to be passed on."""
    message = (
        "The request cannot be read: it is nested too deeply, or the input file was changed in the server's folder."
    )
    _end_rows(db, batch_id, 400, _error(message, "invalid_request_error", "invalid_json"), number)


def _error(message: str, kind: str, code: str) -> bytes:
    """In the form of either API."""
    return orjson.dumps({"type": "error", "error": {"message": message, "type": kind, "param": None, "code": code}})


def _end_rows(db: sqlite3.Connection, batch_id: str, status_code: int, reply: bytes, number: int | None = None) -> None:
    """End the row of this number, or all, that have no end."""
    which = "batch_id = ? AND status_code IS NULL AND ifnull(? = number, TRUE)"
    query = f"UPDATE rows SET status_code = ?, request_id = '', reply = ? WHERE {which}"
    count = db.execute(query, (status_code, reply, batch_id, number)).rowcount
    db.execute("UPDATE batches SET failed = failed + ? WHERE id = ?", (count, batch_id))


def newest(db: sqlite3.Connection) -> float | None:
    """When the newest file or batch was created."""
    query = "SELECT max(created_at) FROM (SELECT created_at FROM files UNION ALL SELECT created_at FROM batches)"
    found: float | None = db.execute(query).fetchone()[0]
    return found


def expired_batches(db: sqlite3.Connection, created_before: float) -> list[str]:
    """The batches that have ended and were created before this time."""
    query = f"SELECT id FROM batches WHERE created_at < ? AND status NOT IN {_UNFINISHED}"
    return [batch_id for (batch_id,) in db.execute(query, (created_before,))]


def expired_files(db: sqlite3.Connection, now: float) -> list[str]:
    """The files that have expired, or wait for a batch of messages that never came, and that no batch reads."""
    in_use = f"SELECT input_file_id FROM batches WHERE status IN {_UNFINISHED}"
    old = "(expires_at <= ? OR purpose = 'messages' AND created_at <= ?)"
    query = f"SELECT id FROM files WHERE {old} AND id NOT IN ({in_use})"
    return [file_id for (file_id,) in db.execute(query, (now, now - MAX_CREATION_S))]


def _ends(db: sqlite3.Connection, batch_id: str) -> Iterator[tuple[str, RowEnd | None]]:
    """How each row ended, in the order of the input."""
    for custom_id, status_code, request_id, reply in db.execute(_RESULTS, (batch_id,)):
        yield custom_id, RowEnd(status_code, request_id, reply) if status_code is not None else None


def _delete_rows(db: sqlite3.Connection, batch_id: str) -> None:
    for table in ("rows", "steps"):
        db.execute(f"DELETE FROM {table} WHERE batch_id = ?", (batch_id,))
