"""API keys and their usage in one SQLite file. Of a key only a salted hash is stored."""

import hashlib
import hmac
import json
import secrets
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from cappella.errors import ConfigError, KeysUnavailable, cause

Scope = Literal["run", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
PREFIX = "ck"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS keys (
    id TEXT PRIMARY KEY, name TEXT NOT NULL, salt BLOB NOT NULL, hash BLOB NOT NULL, scopes TEXT NOT NULL, models TEXT,
    requests_per_minute INTEGER, tokens_per_minute INTEGER, created_at TEXT NOT NULL, revoked_at TEXT
);
CREATE TABLE IF NOT EXISTS usage (
    key_id TEXT NOT NULL, day TEXT NOT NULL, requests INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
    completion_tokens INTEGER NOT NULL, PRIMARY KEY (key_id, day)
);
"""


@dataclass(frozen=True, slots=True)
class Key:
    """A key's permissions. `models` and `documents` None mean all; limits are per minute, None means unlimited."""

    id: str
    name: str
    scopes: tuple[Scope, ...]
    models: tuple[str, ...] | None
    requests_per_minute: int | None
    tokens_per_minute: int | None
    created_at: str
    revoked_at: str | None
    documents: tuple[str, ...] | None = None

    def may_search(self, documents: str) -> bool:
        return self.documents is None or documents in self.documents

    def may_call(self, model: str) -> bool:
        return self.models is None or model in self.models


@dataclass(frozen=True, slots=True)
class Reader:
    """Access rights of a reader: to all that is kept, or only to what is of one key."""

    sees_all: bool
    key_id: str | None

    @classmethod
    def of(cls, key: Key | None) -> "Reader":
        """Those of a key, or of anybody on a server without keys."""
        return cls(key is None or "admin" in key.scopes, key.id if key else None)


@dataclass(slots=True)
class KeyUsage:
    """Requests and tokens of one key."""

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0

    def add(self, more: "KeyUsage") -> None:
        self.requests += more.requests
        self.prompt_tokens += more.prompt_tokens
        self.completion_tokens += more.completion_tokens


class KeyStore:
    """The key file at `path`, created if missing, readable only by its owner. Raises ConfigError if it is unusable.

    Methods raise KeysUnavailable if it is gone, damaged or locked later: it is never made anew while it is in use.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            if not path.exists():
                path.touch(mode=0o600)
            with self._connected() as db:
                db.execute("PRAGMA journal_mode=WAL")
                db.executescript(_SCHEMA)
                if "documents" not in [row["name"] for row in db.execute("PRAGMA table_info(keys)")]:
                    db.execute("ALTER TABLE keys ADD COLUMN documents TEXT")
        except (OSError, KeysUnavailable) as error:
            hint = "Give a file in a folder that this user may write to"
            raise ConfigError(f"server.keys: {path}", f"cannot be used as a key file ({cause(error)})", hint) from error

    def create(
        self,
        name: str,
        scopes: Iterable[Scope],
        models: Iterable[str] | None = None,
        requests_per_minute: int | None = None,
        tokens_per_minute: int | None = None,
        documents: Iterable[str] | None = None,
    ) -> str:
        """Create a key and return its text, which is not stored."""
        key_id, secret, salt = secrets.token_hex(4), secrets.token_urlsafe(32), secrets.token_bytes(16)
        limits = (requests_per_minute, tokens_per_minute)
        allowed, searched = (None if each is None else json.dumps(list(each)) for each in (models, documents))
        secret_hash = _hash(salt, secret)
        row = (key_id, name, salt, secret_hash, json.dumps(list(scopes)), allowed, *limits, _now(), None, searched)
        with self._connected() as db:
            db.execute("INSERT INTO keys VALUES (?,?,?,?,?,?,?,?,?,?,?)", row)
        return f"{PREFIX}_{key_id}_{secret}"

    def find(self, text: str) -> Key | None:
        """The key with this text, unless revoked; None for an unknown text, in the same time."""
        # SQLite rejects lone surrogates, and no key contains one.
        text = text.encode("ascii", "replace").decode()
        _, _, rest = text.partition("_")
        key_id, _, secret = rest.partition("_")
        with self._connected() as db:
            row = db.execute("SELECT * FROM keys WHERE id = ?", (key_id,)).fetchone()
        salt, stored = (row["salt"], row["hash"]) if row else (bytes(16), bytes(32))
        matches = hmac.compare_digest(_hash(salt, secret), stored) and text.startswith(f"{PREFIX}_")
        return _key(row) if row and matches and row["revoked_at"] is None else None

    def named(self, key_id: str) -> Key | None:
        """The key with this id, unless revoked."""
        with self._connected() as db:
            row = db.execute("SELECT * FROM keys WHERE id = ? AND revoked_at IS NULL", (key_id,)).fetchone()
        return _key(row) if row else None

    def all(self) -> list[Key]:
        with self._connected() as db:
            return [_key(row) for row in db.execute("SELECT * FROM keys ORDER BY created_at")]

    def revoke(self, key_id: str) -> bool:
        """Revoke a key; False if there is none with this id that is not revoked already."""
        with self._connected() as db:
            done = db.execute("UPDATE keys SET revoked_at=? WHERE id=? AND revoked_at IS NULL", (_now(), key_id))
            return done.rowcount == 1

    def add(self, usage: Mapping[str, KeyUsage]) -> None:
        """Add to today's usage, by key id."""
        day = _now()[:10]
        rows = [(key, day, each.requests, each.prompt_tokens, each.completion_tokens) for key, each in usage.items()]
        with self._connected() as db:
            db.executemany(
                "INSERT INTO usage VALUES (?,?,?,?,?) ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,"
                " prompt_tokens = prompt_tokens + excluded.prompt_tokens,"
                " completion_tokens = completion_tokens + excluded.completion_tokens",
                rows,
            )

    def usage(self) -> Mapping[str, KeyUsage]:
        """The total usage by key id."""
        query = "SELECT key_id, SUM(requests), SUM(prompt_tokens), SUM(completion_tokens) FROM usage GROUP BY key_id"
        with self._connected() as db:
            return {key: KeyUsage(*counts) for key, *counts in db.execute(query)}

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        try:
            db = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)
            try:
                db.row_factory = sqlite3.Row
                # With the write-ahead log, a commit outlives this process also without a wait for the disk.
                db.execute("PRAGMA synchronous=NORMAL")
                with db:
                    yield db
            finally:
                db.close()
        except sqlite3.Error as error:
            raise KeysUnavailable(f"{self._path}: {error}") from error


def stray_names(path: Path, models: Collection[str], documents: Collection[str]) -> list[str]:
    """What valid keys name that is not among these, a sentence for each key. The file is only read; one that cannot be has none."""
    try:
        # Not even the files beside it are made, which another user could not write to.
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as db:
            db.row_factory = sqlite3.Row
            rows = [dict(row) for row in db.execute("SELECT * FROM keys WHERE revoked_at IS NULL ORDER BY created_at")]
    except sqlite3.Error:
        return []
    keys = [_key({"documents": None, **row}) for row in rows]
    return [told for key in keys if (told := _strays(key, models, documents))]


def _strays(key: Key, models: Collection[str], documents: Collection[str]) -> str | None:
    named = (("models", key.models or (), models), ("documents", key.documents or (), documents))
    lacking = {what: [name for name in names if name not in known] for what, names, known in named}
    told = " and ".join(f"{what} {', '.join(names)}" for what, names in lacking.items() if names)
    return f"the key {key.name} ({key.id}) names {told}, which the config does not have" if told else None


def _hash(salt: bytes, secret: str) -> bytes:
    # The secret has 256 random bits, so a slow hash would add nothing.
    return hashlib.sha256(salt + secret.encode()).digest()


def _key(row: sqlite3.Row | Mapping[str, Any]) -> Key:
    models, documents = (
        None if row[name] is None else tuple(json.loads(row[name])) for name in ("models", "documents")
    )
    limits = (row["requests_per_minute"], row["tokens_per_minute"])
    scopes = tuple(json.loads(row["scopes"]))
    return Key(row["id"], row["name"], scopes, models, *limits, row["created_at"], row["revoked_at"], documents)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
