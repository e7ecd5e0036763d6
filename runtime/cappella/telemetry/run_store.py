"""Traces of runs in one SQLite file, for as many days as the config says. Written and read by a thread of its own."""

import asyncio
import logging
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TypeVar

from cappella.errors import ConfigError

DAY_S = 86_400
PRUNE_S = 3600.0
MAX_WAITING = 1000
APPLICATION_ID = 0x43415052

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, key_id TEXT, ended_at REAL NOT NULL, summary BLOB NOT NULL, trace BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (ended_at);
"""
_ADD = "INSERT INTO runs VALUES (?,?,?,?,?)"
_OWN = "(? OR key_id IS ?)"

T = TypeVar("T")
logger = logging.getLogger("cappella")


@dataclass(frozen=True, slots=True)
class Reader:
    """Who may see what: all, or what was run with one key."""

    sees_all: bool
    key_id: str | None


@dataclass(frozen=True, slots=True)
class Row:
    """A run that ended `ended_at` seconds after the epoch; JSON in short and in full."""

    run_id: str
    key_id: str | None
    ended_at: float
    summary: bytes
    trace: bytes


class RunStore:
    """The file at `path`, made if it is not there, readable by its owner alone. Raises ConfigError if it is another's."""

    def __init__(self, path: Path, retention_days: float) -> None:
        self._retention_s = retention_days * DAY_S
        self._waiting: list[Row] = []
        self._lock = Lock()
        self._is_failing = False
        self._thread = ThreadPoolExecutor(1, "traces")
        try:
            self._db = self._thread.submit(_opened, path).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            hint = "Name a file of its own, in a folder that this user may write to"
            raise ConfigError(f"server.runs.file: {path}", f"cannot be used for runs ({error})", hint) from error

    def add(self, row: Row) -> None:
        """Soon, and before anything is read that is asked for later; what cannot be written is dropped, and told once."""
        with self._lock:
            if len(self._waiting) == MAX_WAITING:
                self._tell("the disk is too slow, and some runs were not kept")
                return
            self._waiting.append(row)
            if len(self._waiting) == 1:
                self._thread.submit(self._write)

    async def find(self, run_id: str, reader: Reader) -> bytes | None:
        """The trace, if there is such a run and the reader may see it."""
        query = f"SELECT trace FROM runs WHERE id = ? AND {_OWN}"
        found = await self._read(query, run_id, reader.sees_all, reader.key_id)
        return found[0] if found else None

    async def recent(self, limit: int, reader: Reader) -> list[bytes]:
        """The last ones in short, newest first."""
        query = f"SELECT summary FROM runs WHERE {_OWN} ORDER BY ended_at DESC, rowid DESC LIMIT ?"
        return await self._read(query, reader.sees_all, reader.key_id, limit)

    async def keep(self) -> None:
        """Delete what is too old, now and every hour, until cancelled."""
        while True:
            await self._on_thread(self._prune)
            await asyncio.sleep(PRUNE_S)

    def close(self) -> None:
        """Write what waits."""
        self._thread.submit(self._db.close)
        self._thread.shutdown()

    def _write(self) -> None:
        with self._lock:
            rows, self._waiting = self._waiting, []
        values = [(row.run_id, row.key_id, row.ended_at, row.summary, row.trace) for row in rows]
        try:
            with self._db:
                self._db.executemany(_ADD, values)
        except sqlite3.Error as error:
            self._tell(f"{len(rows)} runs could not be kept ({error})")
        else:
            self._is_failing = False

    def _prune(self) -> None:
        try:
            with self._db:
                self._db.execute("DELETE FROM runs WHERE ended_at < ?", (time.time() - self._retention_s,))
            # What was deleted stands in the log that SQLite writes ahead until that is emptied.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            self._tell(f"old runs could not be deleted ({error})")

    def _tell(self, problem: str) -> None:
        if not self._is_failing:
            logger.error("server.runs: %s", problem)
        self._is_failing = True

    async def _read(self, query: str, *values: object) -> list[bytes]:
        return await self._on_thread(lambda: [row[0] for row in self._db.execute(query, values)])

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def _opened(path: Path) -> sqlite3.Connection:
    if not path.exists():
        path.touch(mode=0o600)
    db = sqlite3.connect(path, timeout=5)
    try:
        (own,) = db.execute("PRAGMA application_id").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if tables and own != APPLICATION_ID:
            raise sqlite3.DatabaseError("it holds something else")
        # What is deleted is overwritten, so that no content outlives its days in pages that are free.
        db.execute("PRAGMA secure_delete = ON")
        db.execute("PRAGMA journal_mode = WAL")
        db.executescript(_SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db
