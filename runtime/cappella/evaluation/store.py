"""Every answer and outcome of evaluations in one SQLite file, written as it comes: what was asked is not asked again."""

import json
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cappella.errors import ConfigError
from cappella.types import Json

APPLICATION_ID = 0x43415045
_SCHEMA = f"""
PRAGMA application_id = {APPLICATION_ID};
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, reply TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, outcome TEXT NOT NULL);
"""


class Store:
    """The file at `path`. Raises ConfigError if it is something else, or cannot be written.

    A key has one row for ever: the first that was written. With `fresh` what is there is not read, and replaced.
    """

    def __init__(self, path: Path, fresh: bool = False) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._fresh = fresh
        self._new: set[str] = set()
        with self._errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)
            found = self._file.execute("PRAGMA application_id").fetchone()[0]
            has_tables = self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
            if has_tables and found != APPLICATION_ID:
                raise ConfigError(str(path), "is a file of something else", "Name another with --store")
            self._file.executescript(_SCHEMA)
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = NORMAL")

    def reply(self, key: str) -> Json | None:
        found = self._find("replies", "reply", key)
        return None if found is None else dict(json.loads(found))

    def keep_reply(self, key: str, reply: Json) -> None:
        self._keep("replies", key, json.dumps(reply, ensure_ascii=False))

    def outcome(self, key: str) -> str | None:
        return self._find("outcomes", "outcome", key)

    def keep_outcome(self, key: str, outcome: str) -> None:
        self._keep("outcomes", key, outcome)

    def close(self) -> None:
        self._file.close()

    def _find(self, table: str, column: str, key: str) -> str | None:
        if self._fresh and key not in self._new:
            return None
        with self._lock, self._errors():
            row = self._file.execute(f"SELECT {column} FROM {table} WHERE key = ?", (key,)).fetchone()
        return row and str(row[0])

    def _keep(self, table: str, key: str, value: str) -> None:
        how = "REPLACE" if self._fresh and key not in self._new else "IGNORE"
        with self._lock, self._errors():
            self._file.execute(f"INSERT OR {how} INTO {table} VALUES (?, ?)", (key, value))
        self._new.add(key)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as error:
            hint = "Name a file in a folder that this user can write to with --store"
            raise ConfigError(str(self._path), f"cannot keep answers ({error})", hint) from error
