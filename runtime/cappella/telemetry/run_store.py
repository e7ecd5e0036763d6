"""Stores traces of runs, and responses, in one SQLite file for a number of days; a thread reads and writes it."""

import asyncio
import logging
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TypeVar

from cappella.auth.keys import Reader
from cappella.database import DAY_S, open_database, prune_forever, truncate_log
from cappella.errors import ConfigError, cause
from cappella.telemetry.key_quota import KeyQuota

DEFAULT_BYTES_PER_KEY = 2 << 30
MAX_QUEUED_BYTES = 64 << 20
"""What may wait for the disk; one write alone may be larger."""
WRITE_BYTES = 1 << 10
"""What a write takes beside its texts."""
APPLICATION_ID = 0x43415052

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id TEXT PRIMARY KEY, key_id TEXT, ended_at REAL NOT NULL, summary BLOB NOT NULL, trace BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS runs_by_time ON runs (ended_at);
CREATE INDEX IF NOT EXISTS runs_by_key ON runs (key_id);
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, key_id TEXT, created_at REAL NOT NULL, status TEXT NOT NULL, server TEXT NOT NULL,
    input BLOB NOT NULL, response BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS responses_by_time ON responses (created_at);
CREATE INDEX IF NOT EXISTS responses_by_key ON responses (key_id);
CREATE TABLE IF NOT EXISTS response_events (
    response_id TEXT NOT NULL, first INTEGER NOT NULL, last INTEGER NOT NULL, events BLOB NOT NULL,
    PRIMARY KEY (response_id, first)
);
"""
_ADD = "INSERT INTO runs VALUES (?,?,?,?,?)"
_OWN = "(? OR key_id IS ?)"

T = TypeVar("T")
logger = logging.getLogger("cappella")


@dataclass(frozen=True, slots=True)
class Row:
    """A run that ended at `ended_at` (seconds since the epoch); `summary` and `trace` are JSON."""

    run_id: str
    key_id: str | None
    ended_at: float
    summary: bytes
    trace: bytes

    @property
    def size_bytes(self) -> int:
        return len(self.summary) + len(self.trace) + WRITE_BYTES


class RunStore:
    """The file at `path`, created with mode 0600. Raises ConfigError if it is not a run store.

    If the file is removed, moved or replaced, which is logged, later runs are stored in a new one.
    """

    def __init__(self, path: Path, retention_days: float, max_bytes_per_key: int = DEFAULT_BYTES_PER_KEY) -> None:
        self._retention_s = retention_days * DAY_S
        self._quota = KeyQuota(max_bytes_per_key)
        self._queued: list[Row] = []
        self._held_bytes = 0
        self._lock = Lock()
        self._is_failing = self._is_dropping = False
        self._path = path
        self._thread = ThreadPoolExecutor(1, "traces")
        try:
            self._file = self._thread.submit(_open, path).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            hint = "Name a separate file in a folder that this user can write to"
            raise ConfigError(f"server.runs.file: {path}", f"cannot be used for runs ({cause(error)})", hint) from error

    def add(self, row: Row) -> None:
        """Queue a row; later reads see it. Rows that cannot be written are dropped, which is logged once."""
        with self._lock:
            if not self._hold(row.size_bytes, "runs"):
                return
            self._queued.append(row)
            if len(self._queued) == 1:
                self._thread.submit(self._write)

    def write(self, work: Callable[[sqlite3.Connection], object], size_bytes: int) -> None:
        """Queue another write, of so many bytes; later reads see it.

        As with `add`, one that cannot be made is dropped, which is logged once.
        """
        size_bytes += WRITE_BYTES
        with self._lock:
            if not self._hold(size_bytes, "responses"):
                return
        self._thread.submit(self._attempt, work, size_bytes, "a response could not be stored")

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` with the file. Raises OSError or sqlite3.Error."""

        def in_file() -> T:
            with self._in_place() as db:
                result = work(db)
            self._truncate_after_quota(db)
            return result

        return await self._on_thread(in_file)

    def grown(self, db: sqlite3.Connection, key_id: str | None, size_bytes: int) -> None:
        """To be told in a write of what it has added of a key: beyond the key's quota its oldest entries go."""
        self._quota.added(db, key_id, size_bytes)

    async def erase(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """As `call`, for what deletes: no byte of that is left afterwards."""

        def in_file() -> T:
            with self._in_place() as db:
                result = work(db)
            truncate_log(db)
            return result

        return await self._on_thread(in_file)

    async def find(self, run_id: str, reader: Reader) -> bytes | None:
        """The trace; None if there is no such run or the reader may not see it."""
        query = f"SELECT trace FROM runs WHERE id = ? AND {_OWN}"
        rows = await self._read(query, run_id, reader.sees_all, reader.key_id)
        return rows[0] if rows else None

    async def recent(self, limit: int, reader: Reader) -> list[bytes]:
        """Summaries of the last runs, newest first."""
        query = f"SELECT summary FROM runs WHERE {_OWN} ORDER BY ended_at DESC, rowid DESC LIMIT ?"
        return await self._read(query, reader.sees_all, reader.key_id, limit)

    async def prune_forever(self) -> None:
        """Delete runs older than the retention time, soon and then every hour, until cancelled."""
        newest = await self._on_thread(self._newest)
        await prune_forever(newest, lambda now: self._on_thread(partial(self._prune, now - self._retention_s)))

    def close(self) -> None:
        """Write the queued rows and close the file."""
        self._thread.submit(lambda: self._file.db.close())
        self._thread.shutdown()

    def _write(self) -> None:
        with self._lock:
            rows, self._queued = self._queued, []
        values = [(row.run_id, row.key_id, row.ended_at, row.summary, row.trace) for row in rows]

        def work(db: sqlite3.Connection) -> None:
            db.executemany(_ADD, values)
            for row in rows:
                self.grown(db, row.key_id, len(row.summary) + len(row.trace))

        size_bytes = sum(row.size_bytes for row in rows)
        self._attempt(work, size_bytes, f"{len(rows)} runs could not be stored")

    def _attempt(self, work: Callable[[sqlite3.Connection], object], held_bytes: int, problem: str) -> None:
        """Make a write, and hold its bytes no longer. The first that succeeds lets the next failure be logged again."""
        try:
            with self._in_place() as db:
                work(db)
            self._truncate_after_quota(db)
        except (OSError, sqlite3.Error) as error:
            self._log_once(f"{problem} ({error})")
        else:
            self._is_failing = False
        finally:
            with self._lock:
                self._held_bytes -= held_bytes
                self._is_dropping = self._is_dropping and self._held_bytes > 0

    def _truncate_after_quota(self, db: sqlite3.Connection) -> None:
        if self._quota.has_deleted:
            self._quota.has_deleted = False
            truncate_log(db)

    def _hold(self, size_bytes: int, what: str) -> bool:
        """Whether there is room for so many bytes, which are held then. Logs once if there is none, until all is written."""
        if self._held_bytes and self._held_bytes + size_bytes > MAX_QUEUED_BYTES:
            if not self._is_dropping:
                logger.error("server.runs: the disk is too slow: %s are dropped", what)
            self._is_dropping = True
            return False
        self._held_bytes += size_bytes
        return True

    def _in_place(self) -> sqlite3.Connection:
        """The file at the path: opened again if another one lies there, or none. Raises OSError or sqlite3.Error."""
        if not self._file.is_at(self._path):
            logger.error("server.runs: %s was removed, moved or replaced: its runs are gone from here", self._path)
            # Else SQLite would take the write-ahead log, which lies beside the path, for that of the new file.
            self._file.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            self._file.db.close()
            self._file = _open(self._path)
        return self._file.db

    def _newest(self) -> float | None:
        newest: float | None = self._in_place().execute("SELECT max(ended_at) FROM runs").fetchone()[0]
        return newest

    def _prune(self, before: float) -> None:
        old = "(SELECT id FROM responses WHERE created_at < ?)"
        try:
            with self._in_place() as db:
                db.execute("DELETE FROM runs WHERE ended_at < ?", (before,))
                db.execute(f"DELETE FROM response_events WHERE response_id IN {old}", (before,))
                db.execute("DELETE FROM responses WHERE created_at < ?", (before,))
            truncate_log(db)
        except (OSError, sqlite3.Error) as error:
            self._log_once(f"old runs could not be deleted ({error})")

    def _log_once(self, problem: str) -> None:
        if not self._is_failing:
            logger.error("server.runs: %s", problem)
        self._is_failing = True

    async def _read(self, query: str, *values: object) -> list[bytes]:
        return await self._on_thread(lambda: [row[0] for row in self._in_place().execute(query, values)])

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


@dataclass(frozen=True, slots=True)
class _File:
    """An open database, and the file that it was when it was opened."""

    db: sqlite3.Connection
    opened: os.stat_result

    def is_at(self, path: Path) -> bool:
        try:
            return os.path.samestat(path.stat(), self.opened)
        except FileNotFoundError:
            return False


def _open(path: Path) -> _File:
    return _File(open_database(path, APPLICATION_ID, _SCHEMA), path.stat())
