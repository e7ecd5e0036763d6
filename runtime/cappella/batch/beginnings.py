"""How batches begin: what is stored of a new one. For the folder's thread."""

import secrets
import sqlite3
import time
from collections.abc import Sequence

import orjson

from cappella.batch.types import UNFINISHED, Api, NewBatch, NewRow, Status
from cappella.errors import BatchRefused, RequestError

SECRET_BYTES = 32
MAX_UNFINISHED = 100
"""Of one key."""
MAX_FAILED = 100
"""Of one key: they are kept for their errors alone, and the oldest go."""
_PREFIXES: dict[Api, str] = {"openai": "batch", "anthropic": "msgbatch"}

_DELETE_OLD_FAILED = (
    "DELETE FROM batches WHERE rowid IN"
    " (SELECT rowid FROM batches WHERE key_id IS ? AND status = 'failed' ORDER BY rowid DESC LIMIT -1 OFFSET ?)"
)


def insert(db: sqlite3.Connection, new: NewBatch, rows: Sequence[NewRow]) -> str:
    """The id of the batch, which is in progress, or failed if it has errors. Raises RequestError and BatchRefused."""
    _require_few(db, new.key_id)
    if not db.execute("SELECT 1 FROM files WHERE id = ?", (new.input_file_id,)).fetchone():
        raise BatchRefused(f"{new.input_file_id} was deleted before the batch began.")
    batch_id, now = f"{_PREFIXES[new.api]}_{secrets.token_hex(12)}", time.time()
    status: Status = "failed" if new.errors else "in_progress"
    head = (batch_id, new.key_id, new.api, new.endpoint, status, now, new.window_s, new.input_file_id, None, None)
    texts = [orjson.dumps(each).decode() for each in (new.metadata, list(new.errors), {status: now})]
    counts = (len(rows), 0, 0, 0)
    values = (*head, new.output_expires_s, *texts, *counts, "", secrets.token_bytes(SECRET_BYTES))
    db.execute(f"INSERT INTO batches VALUES ({','.join('?' * len(values))})", values)
    db.execute(_DELETE_OLD_FAILED, (new.key_id, MAX_FAILED))
    ordered = enumerate(sorted(rows, key=lambda row: row.order), 1)
    db.executemany(
        "INSERT INTO rows VALUES (?,?,?,?,?,?,NULL,NULL,NULL)",
        ((batch_id, row.number, rank, row.custom_id, row.offset, row.size_bytes) for rank, row in ordered),
    )
    return batch_id


def _require_few(db: sqlite3.Connection, key_id: str | None) -> None:
    query = "SELECT count(*) FROM batches WHERE key_id IS ? AND status IN (?, ?)"
    if db.execute(query, (key_id, *UNFINISHED)).fetchone()[0] >= MAX_UNFINISHED:
        message = f"{MAX_UNFINISHED} batches of this key have not ended, the most that one may have: wait for one."
        raise RequestError(message, None, "quota_exceeded")
