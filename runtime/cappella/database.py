"""SQLite files with private content: open to their owner only, deleted rows overwritten, kept for a number of days."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

DAY_S = 86_400
PRUNE_S = 3600.0
FIRST_PRUNE_S = 600.0
"""Not at once: by then a clock that was wrong when the machine started has been set."""


def open_database(path: Path, application_id: int, schema: str) -> sqlite3.Connection:
    """The database at `path`, created with mode 0600. Raises OSError, and sqlite3.Error if it is another kind."""
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
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(f"PRAGMA application_id = {application_id};\n{schema}")
    except sqlite3.Error:
        db.close()
        raise
    return db


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
