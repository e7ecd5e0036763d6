"""Reads the requests of rows from input files: a row that cannot be read ends with an error. For the folder's thread."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from cappella import lenient_json
from cappella.batch import endings
from cappella.batch.types import Api, Batch, Row

ROWS_BYTES = 64 << 20
"""The bodies that `rows_left` returns at once; one alone may be larger."""
_LEFT = (
    "SELECT number, custom_id, offset, size_bytes, rank FROM rows"
    " WHERE batch_id = ? AND status_code IS NULL AND rank > ? ORDER BY rank LIMIT ?"
)
_BODIES: dict[Api, str] = {"openai": "body", "anthropic": "params"}
"""The field of a line that has the request."""

_Place = tuple[int, str, int, int, int]


def rows_left(db: sqlite3.Connection, batch: Batch, path: Path, limit: int, after: int) -> list[Row]:
    """The next rows without an end, with their requests. None are left where the input file is gone."""
    while found := db.execute(_LEFT, (batch.id, after, limit)).fetchall():
        if not path.exists():
            endings.give_up(db, batch.id)
            return []
        if rows := list(_readable(db, batch, path, found)):
            return rows
    return []


def _readable(db: sqlite3.Connection, batch: Batch, path: Path, found: Sequence[_Place]) -> Iterator[Row]:
    """As many as ROWS_BYTES allow."""
    total = 0
    with path.open("rb") as content:
        for number, custom_id, offset, size_bytes, rank in found:
            total += size_bytes
            if total > max(ROWS_BYTES, size_bytes):
                return
            content.seek(offset)
            try:
                body = _body(batch.api, content.read(size_bytes))
            except (ValueError, TypeError, KeyError, RecursionError):
                endings.refuse_row(db, batch.id, number)
            else:
                yield Row(batch.id, number, custom_id, batch.endpoint, body, rank)


def _body(api: Api, line: bytes) -> bytes:
    """Raises ValueError, TypeError, KeyError and RecursionError."""
    return orjson.dumps(lenient_json.loads(line)[0][_BODIES[api]])
