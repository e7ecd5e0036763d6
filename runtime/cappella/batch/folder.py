"""The folder of batches: one SQLite file, the contents of files beside it, and one thread that reads and writes them."""

import asyncio
import logging
import os
import re
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from cappella.database import open_database, truncate_log
from cappella.errors import BatchesUnavailable, ConfigError, cause

DATABASE = "batches.sqlite"
APPLICATION_ID = 0x43414243
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    id TEXT PRIMARY KEY, key_id TEXT, purpose TEXT NOT NULL, filename TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    created_at REAL NOT NULL, expires_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS batches (
    id TEXT PRIMARY KEY, key_id TEXT, api TEXT NOT NULL, endpoint TEXT NOT NULL, status TEXT NOT NULL,
    created_at REAL NOT NULL, window_s REAL NOT NULL, input_file_id TEXT NOT NULL, output_file_id TEXT, error_file_id TEXT,
    output_expires_s REAL, metadata TEXT NOT NULL, errors TEXT NOT NULL, times TEXT NOT NULL, total INTEGER NOT NULL,
    completed INTEGER NOT NULL, failed INTEGER NOT NULL, total_tokens INTEGER NOT NULL, weights TEXT NOT NULL,
    secret BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS rows (
    batch_id TEXT NOT NULL, number INTEGER NOT NULL, rank INTEGER NOT NULL, custom_id TEXT NOT NULL,
    offset INTEGER NOT NULL, size_bytes INTEGER NOT NULL, status_code INTEGER, request_id TEXT, reply BLOB,
    PRIMARY KEY (batch_id, number)
);
CREATE INDEX IF NOT EXISTS rows_left ON rows (batch_id, rank) WHERE status_code IS NULL;
CREATE TABLE IF NOT EXISTS steps (
    batch_id TEXT NOT NULL, number INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL,
    PRIMARY KEY (batch_id, number, key)
);
"""
_UNFINISHED = ".part"
_CONTENT = re.compile(rf"file-[0-9a-f]{{24}}({re.escape(_UNFINISHED)})?")
"""The names of contents, as `files.new_file_id` makes them."""

T = TypeVar("T")
logger = logging.getLogger("cappella")


class Folder:
    """The folder at `path`, created with mode 0700, for one server. Raises ConfigError if it cannot be used."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._thread = ThreadPoolExecutor(1, "batches")
        self._is_failing = False
        try:
            self._db = self._thread.submit(self._open).result()
        except (OSError, sqlite3.Error) as error:
            self._thread.shutdown()
            why = "another server uses it" if "locked" in str(error) else cause(error)
            hint = "Name a folder of its own that this user can write to"
            raise ConfigError(f"server.batch.folder: {path}", f"cannot be used for batches ({why})", hint) from error

    async def call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """The result of `work` on the folder's thread, in one transaction. Raises BatchesUnavailable."""

        def in_transaction() -> T:
            with self._db as db:
                return work(db)

        return await self._attempt(in_transaction)

    async def settle(self, work: Callable[[sqlite3.Connection], T], then: Callable[[], object] = lambda: None) -> T:
        """As `call`: what is written outlives a loss of power, and of what is deleted no byte is left.

        `then` follows what was committed, even if the caller was cancelled meanwhile.
        """

        def in_transaction() -> T:
            with self._db as db:
                result = work(db)
            then()
            self._truncate_log()
            return result

        return await self._attempt(in_transaction)

    async def on_thread(self, work: Callable[[], T]) -> T:
        """The result of `work`, which is not about the database. Raises BatchesUnavailable."""
        return await self._attempt(work)

    def content(self, file_id: str) -> Path:
        """Where the content of a file lies."""
        return self.path / file_id

    def part(self, file_id: str) -> Path:
        """Where it lies until it is complete."""
        return self.path / f"{file_id}{_UNFINISHED}"

    def close(self) -> None:
        """Finish what is being written, and close the file."""
        self._thread.submit(lambda: self._db.close())
        self._thread.shutdown()

    async def _attempt(self, work: Callable[[], T]) -> T:
        """Logs the first failure, and the next one after a success."""
        try:
            result = await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (OSError, sqlite3.Error) as error:
            if not self._is_failing:
                logger.error("server.batch: %s cannot be read or written: %s", self.path, cause(error))
            self._is_failing = True
            message = f"The server cannot read or write its batches now ({cause(error)})."
            raise BatchesUnavailable(message) from error
        self._is_failing = False
        return result

    def _truncate_log(self) -> None:
        """The work is done: a disk that is too full for this is told, and the next one who settles tries again."""
        try:
            truncate_log(self._db)
        except sqlite3.Error as error:
            logger.warning("server.batch: what was deleted from %s lies there for a while (%s)", self.path, error)

    def _open(self) -> sqlite3.Connection:
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        db = open_database(self.path / DATABASE, APPLICATION_ID, _SCHEMA)
        # Two servers would each answer every row: the first one keeps the lock while it is up.
        db.execute("PRAGMA locking_mode = EXCLUSIVE")
        # A commit outlives this process also without a wait for the disk.
        db.execute("PRAGMA synchronous = NORMAL")
        try:
            with db:
                db.execute("DELETE FROM steps WHERE FALSE")
                self._remove_remains({name for (name,) in db.execute("SELECT id FROM files")})
        except (OSError, sqlite3.Error):
            db.close()
            raise
        return db

    def _remove_remains(self, known: set[str]) -> None:
        """Remove what a server that was killed had begun to write, or to delete; other files are somebody's own."""
        for entry in os.scandir(self.path):
            if _CONTENT.fullmatch(entry.name) and entry.name not in known and entry.is_file(follow_symlinks=False):
                os.unlink(entry)
