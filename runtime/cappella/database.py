"""SQLite files with private content: open to their owner only, deleted rows overwritten, kept for a number of days."""

import asyncio
import sqlite3
import time
import zlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

DAY_S = 86_400
PRUNE_S = 3600.0
FIRST_PRUNE_S = 600.0
"""Not at once: by then a clock that was wrong when the machine started has been set."""


_ID_BYTE = 68
"""Where the application id stands in SQLite's header."""
_MAGIC = b"SQLite format 3\0"


def open_database(path: Path, application_id: int, schema: str) -> sqlite3.Connection:
    """The database at `path`, created with mode 0600. Raises OSError, and sqlite3.Error if it is another kind.

    One that has this schema already is not written.
    """
    if not path.exists():
        path.touch(mode=0o600)
    db = sqlite3.connect(path, timeout=5)
    try:
        (own,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and own != application_id:
            raise sqlite3.DatabaseError("it is another kind of database")
        # Overwrites deleted rows, so that no content outlives its retention time in free pages.
        db.execute("PRAGMA secure_delete = ON")
        if own != application_id:
            # Before the write-ahead log, so that the file itself says what it is.
            db.execute(f"PRAGMA application_id = {application_id}")
        db.execute("PRAGMA journal_mode = WAL")
        made_with = zlib.crc32(schema.encode()) & 0x7FFF_FFFF
        if db.execute("PRAGMA user_version").fetchone() != (made_with,):
            db.executescript(f"{schema};\nPRAGMA user_version = {made_with};")
    except sqlite3.Error:
        db.close()
        raise
    return db


def open_to_read(path: Path, application_id: int) -> sqlite3.Connection:
    """The database at `path`, which is not written. Raises sqlite3.Error, also if there is none or it is another kind."""
    db = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5)
    try:
        if db.execute("PRAGMA application_id").fetchone() != (application_id,):
            raise sqlite3.DatabaseError("it is another kind of database")
    except sqlite3.Error:
        db.close()
        raise
    return db


def has_application_id(path: Path, application_id: int) -> bool:
    """Whether the file says that it is a database of this kind, damaged or not."""
    try:
        with path.open("rb") as file:
            head = file.read(_ID_BYTE + 4)
    except OSError:
        return False
    return head.startswith(_MAGIC) and head[_ID_BYTE:] == application_id.to_bytes(4, "big")


def truncate_log(db: sqlite3.Connection) -> None:
    """Deleted rows stay in the write-ahead log until it is truncated."""
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


async def prune_forever(newest: float | None, prune: Callable[[float], Awaitable[object]]) -> None:
    """Call `prune` with the time, soon and then every hour, until cancelled.

    The time is that of the `newest` entry found at the start, and what passed since: a clock that is ahead makes nothing
    old. The time in which no server ran, just before this one, so counts for none.
    """
    newest, began = time.time() if newest is None else newest, time.monotonic()
    await asyncio.sleep(FIRST_PRUNE_S)
    while True:
        await prune(min(time.time(), newest + time.monotonic() - began))
        await asyncio.sleep(PRUNE_S)
