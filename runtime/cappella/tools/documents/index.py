"""The index of one folder in one SQLite file: files, their passages, the words of these, and their vectors.

Each file is one transaction, so that a killed process loses no other. What a file says is erased with it.
"""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cappella.config.documents import INDEX_APPLICATION_ID
from cappella.database import open_database, open_to_read, truncate_log
from cappella.tools.documents import terms
from cappella.tools.documents.cutting import Cut
from cappella.tools.documents.folder import FoundFile
from cappella.tools.documents.index_errors import IndexUnusable, unusable
from cappella.tools.documents.index_lock import write_lock
from cappella.tools.documents.index_rows import StoredFile, StoredPassage

VERSION = 2
"""Of the tables, and of how text is cut into passages: an index of another version is made again."""

_TO_ERASE = "to_erase"
_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS files (
    id INTEGER PRIMARY KEY, path TEXT NOT NULL UNIQUE, size_bytes INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
    ctime_ns INTEGER NOT NULL, inode TEXT NOT NULL, device TEXT NOT NULL, tries INTEGER NOT NULL,
    digest BLOB NOT NULL, title TEXT NOT NULL, problem TEXT, is_cut INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS passages (
    id INTEGER PRIMARY KEY, file INTEGER NOT NULL REFERENCES files (id), unit TEXT NOT NULL, first INTEGER NOT NULL,
    last INTEGER NOT NULL, heading TEXT NOT NULL, text TEXT NOT NULL, repeated INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS passages_of_files ON passages (file);
CREATE TABLE IF NOT EXISTS vectors (passage INTEGER PRIMARY KEY REFERENCES passages (id), vector BLOB NOT NULL);
"""
_KNOWN = ("size_bytes", "mtime_ns", "ctime_ns", "inode", "device", "tries", "digest", "problem", "is_cut")
_FILE = f"INSERT INTO files (path, title, {', '.join(_KNOWN)}) VALUES ({','.join('?' * (len(_KNOWN) + 2))})"
_PASSAGE = (
    "SELECT unit, first, last, heading, text, repeated, passages.id, path, title"
    " FROM passages JOIN files ON files.id = passages.file"
)

_VECTORS = "SELECT passage, vector FROM vectors WHERE length(vector) > 0 ORDER BY passage LIMIT ?"


class Index:
    """The index at `path`, made for these `languages`. To be used by one thread. Raises IndexUnusable.

    A reader writes nothing, also where there is no index.
    """

    def __init__(self, path: Path, languages: Sequence[str], is_reader: bool = False) -> None:
        self._path = path
        self._languages = languages
        try:
            if is_reader:
                self._db = open_to_read(path, INDEX_APPLICATION_ID)
            else:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._db = open_database(path, INDEX_APPLICATION_ID, _SCHEMA)
        except OSError as error:
            raise IndexUnusable(f"{path}: the index cannot be opened ({error}).") from error
        except sqlite3.Error as error:
            raise unusable(path, error) from error
        self._db.isolation_level = None
        # With the write-ahead log, a commit outlives this process also without a wait for the disk.
        self._db.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def writing(self, folder: Path) -> Iterator[None]:
        """In this context this process alone writes the index. Raises IndexBusy if another one does."""
        with write_lock(self._path):
            self.make_for(folder)
            yield

    def verify(self) -> None:
        """Raises sqlite3.DatabaseError if the file is damaged anywhere."""
        self._db.execute("INSERT INTO words (words) VALUES ('integrity-check')")
        if self._db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            damage = sqlite3.DatabaseError("its pages are damaged")
            damage.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise damage

    def make_for(self, folder: Path) -> None:
        """Make an index of this folder and these languages of it; what another version or folder left behind is deleted."""
        kept = {"version": str(VERSION), "folder": str(folder.resolve())}
        tokenize = terms.tokenizer(self._languages)
        stored = self._facts()
        if any(stored.get(name) != value for name, value in kept.items()):
            other = stored.get("folder", kept["folder"])
            if other != kept["folder"] and Path(other).is_dir():
                raise IndexUnusable(f"{self._path} is the index of {other}. Name another at documents.NAME.index.")
            with self._transaction():
                self._empty()
                self._make_words(tokenize)
                facts = {**kept, "tokenizer": tokenize}
                self._db.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
            truncate_log(self._db)
        elif stored.get("tokenizer") != tokenize:
            # The words of other languages; the passages and their vectors are the same.
            with self._transaction():
                self._make_words(tokenize)
                self._db.execute("INSERT OR REPLACE INTO facts VALUES ('tokenizer', ?)", (tokenize,))
            truncate_log(self._db)

    def _empty(self) -> None:
        for each in ("vectors", "passages", "files", "facts"):
            self._db.execute(f"DROP TABLE IF EXISTS {each}")
        for statement in _SCHEMA.split(";"):
            self._db.execute(statement)

    def _make_words(self, tokenize: str) -> None:
        self._db.execute("DROP TABLE IF EXISTS words")
        self._db.execute(f"CREATE VIRTUAL TABLE words USING fts5(heading, text, content='', tokenize='{tokenize}')")
        for row in self._db.execute(_PASSAGE):
            self._put_words(StoredPassage(*row))

    def _put_words(self, each: StoredPassage) -> None:
        words = (each.id, *_words_of(each.title, each.heading, each.text))
        self._db.execute("INSERT INTO words (rowid, heading, text) VALUES (?,?,?)", words)

    def _facts(self) -> dict[str, str]:
        return dict(self._db.execute("SELECT name, value FROM facts").fetchall())

    @property
    def _has_words(self) -> bool:
        return bool(self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'words'").fetchone())

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    def files(self) -> dict[str, StoredFile]:
        """The files of the index by their paths."""
        rows = self._db.execute(f"SELECT path, {', '.join(_KNOWN)} FROM files")
        return {path: StoredFile(*rest) for path, *rest in rows}

    def counts(self) -> tuple[int, int]:
        """The files with passages, and the passages."""
        (files,) = self._db.execute("SELECT count(*) FROM files WHERE problem IS NULL").fetchone()
        (passages,) = self._db.execute("SELECT count(*) FROM passages").fetchone()
        return files, passages

    def put(
        self, file: FoundFile, digest: bytes, cuts: Sequence[Cut], title: str = "", problem: str | None = None,
        is_cut: bool = False, tries: int = 0,
    ) -> None:  # fmt: skip
        """Store a file with its passages, in the place of what it said before."""
        with self._transaction():
            self._remove(file.path)
            seen = (file.size_bytes, file.mtime_ns, file.ctime_ns, str(file.inode), str(file.device))
            at = self._db.execute(_FILE, (file.path, title, *seen, tries, digest, problem, is_cut)).lastrowid
            for each in cuts:
                passage = (at, each.unit, each.first, each.last, each.heading, each.text, each.repeated)
                number = self._db.execute(
                    "INSERT INTO passages (file, unit, first, last, heading, text, repeated) VALUES (?,?,?,?,?,?,?)",
                    passage,
                ).lastrowid
                self._db.execute(
                    "INSERT INTO words (rowid, heading, text) VALUES (?,?,?)",
                    (number, *_words_of(title, each.heading, each.text)),
                )

    def touch(self, file: FoundFile) -> None:
        """Note that a file has a new time or place on the disk, and says the same."""
        seen = (file.mtime_ns, file.ctime_ns, str(file.inode), str(file.device), file.path)
        with self._transaction():
            self._db.execute("UPDATE files SET mtime_ns=?, ctime_ns=?, inode=?, device=? WHERE path=?", seen)

    def remove(self, path: str) -> None:
        """Delete a file with its passages."""
        with self._transaction():
            self._remove(path)

    def _remove(self, path: str) -> None:
        rows = self._db.execute(f"{_PASSAGE} WHERE path = ?", (path,)).fetchall()
        if rows:
            # Outlives a kill before it is erased.
            self._db.execute("INSERT OR REPLACE INTO facts VALUES (?, '1')", (_TO_ERASE,))
        for row in rows:
            old = StoredPassage(*row)
            words = (old.id, *_words_of(old.title, old.heading, old.text))
            self._db.execute("INSERT INTO words (words, rowid, heading, text) VALUES ('delete',?,?,?)", words)
            self._db.execute("DELETE FROM vectors WHERE passage = ?", (old.id,))
            self._db.execute("DELETE FROM passages WHERE id = ?", (old.id,))
        self._db.execute("DELETE FROM files WHERE path = ?", (path,))

    def erase_removed(self) -> None:
        """Overwrite what was deleted, if anything: words stay until the parts of their index are merged, all in SQLite's log."""
        if _TO_ERASE not in self._facts():
            return
        with self._transaction():
            self._db.execute("INSERT INTO words (words) VALUES ('optimize')")
            self._db.execute("DELETE FROM facts WHERE name = ?", (_TO_ERASE,))
        truncate_log(self._db)

    def by_words(self, question: str, limit: int) -> list[int]:
        """The passages with words of the question, the best first (BM25)."""
        query = terms.query_of(question, self._languages)
        if not query or not self._has_words:
            return []
        found = "SELECT rowid FROM words WHERE words MATCH ? ORDER BY bm25(words, 2.0, 1.0) LIMIT ?"
        return [row[0] for row in self._db.execute(found, (query, limit))]

    def scores(self, query: str, limit: int) -> dict[int, float]:
        """Passages that a query of the full-text index finds, with their scores (BM25): the best have the highest."""
        found = "SELECT rowid, -bm25(words, 2.0, 1.0) FROM words WHERE words MATCH ? LIMIT ?"
        return dict(self._db.execute(found, (query, limit))) if self._has_words else {}

    def passages(self, ids: Sequence[int]) -> list[StoredPassage]:
        """These passages in their order; those that are gone meanwhile are left out."""
        marks = ",".join("?" * len(ids))
        rows = self._db.execute(f"{_PASSAGE} WHERE passages.id IN ({marks})", list(ids))
        found = {each.id: each for each in (StoredPassage(*row) for row in rows)}
        return [found[each] for each in ids if each in found]

    def passages_of(self, path: str) -> list[StoredPassage]:
        """All passages of a file, in order."""
        rows = self._db.execute(f"{_PASSAGE} WHERE path = ? ORDER BY passages.id", (path,))
        return [StoredPassage(*row) for row in rows]

    def without_vectors(self, embedder: str, limit: int) -> list[StoredPassage]:
        """Passages that have no vector by this embedder; the vectors of another one are deleted."""
        if self._facts().get("embedder") != embedder:
            with self._transaction():
                self._db.execute("DELETE FROM vectors")
                self._db.execute("INSERT OR REPLACE INTO facts VALUES ('embedder', ?)", (embedder,))
        missing = f"{_PASSAGE} LEFT JOIN vectors ON passage = passages.id WHERE passage IS NULL LIMIT ?"
        return [StoredPassage(*row) for row in self._db.execute(missing, (limit,))]

    def put_vectors(self, embedder: str, vectors: Mapping[int, bytes]) -> None:
        """Store vectors of passages; of those that are gone meanwhile, none."""
        with self._transaction():
            if self._facts().get("embedder") != embedder:
                return
            for passage, vector in vectors.items():
                row = (vector, passage)
                self._db.execute("INSERT OR REPLACE INTO vectors SELECT id, ? FROM passages WHERE id = ?", row)

    def vectors(self, embedder: str, limit: int) -> list[tuple[int, bytes]]:
        """The vectors by this embedder."""
        if self._facts().get("embedder") != embedder:
            return []
        return self._db.execute(_VECTORS, (limit,)).fetchall()

    @property
    def version(self) -> int:
        """A number that changes with every write by another connection."""
        number: int = self._db.execute("PRAGMA data_version").fetchone()[0]
        return number

    def state_of(self, path: str) -> tuple[str | None, bool]:
        """Why a file has no passages, and whether it has more text than is in them."""
        row = self._db.execute("SELECT problem, is_cut FROM files WHERE path = ?", (path,)).fetchone()
        return (row[0], bool(row[1])) if row else (None, False)


def _words_of(title: str, heading: str, text: str) -> tuple[str, str]:
    return terms.indexed(heading or title), terms.indexed(text)
