"""Stores responses with the conversation that led to them, in the file of the run store, for as long as that keeps runs."""

import logging
import secrets
import sqlite3
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import orjson

from cappella.errors import RunsUnavailable
from cappella.telemetry.run_store import RunStore
from cappella.types import Json

UNFINISHED = ("queued", "in_progress")
_IS_UNFINISHED = "status IN ('queued', 'in_progress')"
_OWN = "id = ? AND key_id IS ?"
T = TypeVar("T")
logger = logging.getLogger("cappella")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response of one key; `items` is the whole conversation that it answers, with that of earlier responses."""

    id: str
    key_id: str | None
    created_at: float
    status: str
    items: Sequence[Json]
    response: Json


@dataclass(frozen=True, slots=True)
class Found:
    """A response as clients get it: `shown` is its JSON. `is_own` says whether this server has begun it."""

    status: str
    shown: bytes
    in_background: bool
    is_own: bool

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED


@dataclass(frozen=True, slots=True)
class Conversation:
    """The items that a response answers, and its own after them; `size_bytes` is their JSON's."""

    status: str
    items: Sequence[Json]
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Events:
    """Events of a response's stream in their order, each a frame of bytes; numbers `first` to `last`, perhaps with gaps."""

    first: int
    last: int
    frames: Sequence[bytes]


def json_size(value: object) -> int:
    """About as many bytes as the value's JSON has, without writing that."""
    if isinstance(value, str):
        return len(value) + 2
    if isinstance(value, Mapping):
        return 2 + sum(len(name) + 4 + json_size(each) for name, each in value.items())
    if isinstance(value, Sequence):
        return 2 + sum(1 + json_size(each) for each in value)
    return 4


class ResponseStore:
    """Responses of one server. Those that it has not finished when it ends are failed by the next server of the file.

    JSON is read and written by the store's thread.
    """

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._server = secrets.token_hex(8)

    def add(self, make: Callable[[], StoredResponse], size_bytes: int) -> None:
        """Queue what `make` returns; later reads see it. One that cannot be written is dropped, which is logged once."""
        self._runs.write(lambda db: self._insert(db, make()), size_bytes)

    async def create(self, make: Callable[[], StoredResponse]) -> None:
        """Write what `make` returns now. Raises RunsUnavailable."""
        await self._call(lambda db: self._insert(db, make()))

    def begin(self, response_id: str) -> None:
        """Note that a queued response is in progress."""
        query = "UPDATE responses SET status = 'in_progress' WHERE id = ? AND status = 'queued'"
        self._runs.write(lambda db: db.execute(query, (response_id,)), 0)

    def finish(self, response_id: str, response: Json) -> None:
        """Replace an unfinished response; one that is finished or deleted stays so."""
        query = f"UPDATE responses SET status = ?, response = ? WHERE id = ? AND {_IS_UNFINISHED}"

        def work(db: sqlite3.Connection) -> None:
            shown = orjson.dumps(response)
            db.execute(query, (response["status"], shown, response_id))
            self._grown(db, response_id, len(shown))

        self._runs.write(work, json_size(response))

    def end(self, response_id: str, status: str, error: Json | None = None) -> None:
        """End an unfinished response without an answer."""
        self._runs.write(lambda db: _end(db, response_id, status, error), 0)

    async def find(self, response_id: str, key_id: str | None) -> Found | None:
        """The response; None if there is none of this key. Raises RunsUnavailable."""
        return await self._one("status, response, server", response_id, key_id, self._found)

    async def items(self, response_id: str, key_id: str | None) -> list[Json] | None:
        """The items that the response answers; as `find`."""
        return await self._one("input", response_id, key_id, orjson.loads)

    async def output(self, response_id: str, key_id: str | None) -> list[Json] | None:
        """The response's own items; as `find`."""
        return await self._one("response", response_id, key_id, _output)

    async def conversation(self, response_id: str, key_id: str | None) -> Conversation | None:
        """The conversation up to the response's end; as `find`."""
        return await self._one("status, input, response", response_id, key_id, _conversation)

    async def delete(self, response_id: str, key_id: str | None) -> bool:
        """Whether there was one of this key; no byte of it is left then. Raises RunsUnavailable."""

        def work(db: sqlite3.Connection) -> bool:
            if not db.execute(f"DELETE FROM responses WHERE {_OWN}", (response_id, key_id)).rowcount:
                return False
            db.execute("DELETE FROM response_events WHERE response_id = ?", (response_id,))
            return True

        return await self._raising(self._runs.erase(work))

    async def fail_interrupted(self, error: Json) -> None:
        """Mark what earlier servers have not finished as failed with this error."""
        query = f"SELECT id FROM responses WHERE {_IS_UNFINISHED} AND server <> ?"

        def work(db: sqlite3.Connection) -> None:
            for (response_id,) in db.execute(query, (self._server,)).fetchall():
                _end(db, response_id, "failed", error)

        await self._call(work)

    def add_events(self, response_id: str, events: Events) -> None:
        """Queue events of a response, unless that has been deleted; later reads see them."""
        query = "INSERT INTO response_events SELECT id, ?, ?, ? FROM responses WHERE id = ?"

        def work(db: sqlite3.Connection) -> None:
            packed = zlib.compress(b"".join(events.frames), 1)
            db.execute(query, (events.first, events.last, packed, response_id))
            self._grown(db, response_id, len(packed))

        self._runs.write(work, sum(map(len, events.frames)))

    async def events(self, response_id: str, first: int) -> Events | None:
        """Some events with numbers from `first` on, the next ones; None if no more are stored. Raises RunsUnavailable."""
        query = (
            "SELECT first, last, events FROM response_events WHERE response_id = ? AND last >= ? ORDER BY first LIMIT 1"
        )
        return await self._call(lambda db: _events(db.execute(query, (response_id, first)).fetchone()))

    async def last_events(self, response_id: str) -> Events | None:
        """The last events that are stored; None if there are none. Raises RunsUnavailable."""
        query = "SELECT first, last, events FROM response_events WHERE response_id = ? ORDER BY first DESC LIMIT 1"
        return await self._call(lambda db: _events(db.execute(query, (response_id,)).fetchone()))

    async def _one(self, columns: str, response_id: str, key_id: str | None, read: Callable[..., T]) -> T | None:
        """What `read` makes of these columns, on the store's thread."""
        query = f"SELECT {columns} FROM responses WHERE {_OWN}"

        def work(db: sqlite3.Connection) -> T | None:
            row = db.execute(query, (response_id, key_id)).fetchone()
            return read(*row) if row else None

        return await self._call(work)

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._raising(self._runs.call(work))

    async def _raising(self, result: Awaitable[T]) -> T:
        try:
            return await result
        except (OSError, sqlite3.Error) as error:
            logger.error("server.runs: responses cannot be read or written: %s", error)
            raise RunsUnavailable("The server cannot read or write its responses now: see its log.") from error

    def _insert(self, db: sqlite3.Connection, stored: StoredResponse) -> None:
        items, response = orjson.dumps(stored.items), orjson.dumps(stored.response)
        values = (stored.id, stored.key_id, stored.created_at, stored.status, self._server, items, response)
        db.execute("INSERT OR REPLACE INTO responses VALUES (?,?,?,?,?,?,?)", values)
        self._runs.grown(db, stored.key_id, len(items) + len(response))

    def _grown(self, db: sqlite3.Connection, response_id: str, size_bytes: int) -> None:
        if row := db.execute("SELECT key_id FROM responses WHERE id = ?", (response_id,)).fetchone():
            self._runs.grown(db, row[0], size_bytes)

    def _found(self, status: str, response: bytes, server: str) -> Found:
        parsed = orjson.loads(response)
        shown = response if parsed.get("status") == status else orjson.dumps({**parsed, "status": status})
        return Found(status, shown, bool(parsed.get("background")), server == self._server)


def _end(db: sqlite3.Connection, response_id: str, status: str, error: Json | None) -> None:
    query = f"SELECT response FROM responses WHERE id = ? AND {_IS_UNFINISHED}"
    if row := db.execute(query, (response_id,)).fetchone():
        response = orjson.dumps({**orjson.loads(row[0]), "status": status, "error": error})
        db.execute("UPDATE responses SET status = ?, response = ? WHERE id = ?", (status, response, response_id))


def _output(response: bytes) -> list[Json]:
    output: list[Json] = orjson.loads(response)["output"]
    return output


def _conversation(status: str, items: bytes, response: bytes) -> Conversation:
    output = _output(response)
    return Conversation(status, [*orjson.loads(items), *output], len(items) + len(orjson.dumps(output)))


def _events(row: tuple[int, int, bytes] | None) -> Events | None:
    if row is None:
        return None
    first, last, packed = row
    return Events(first, last, [frame + b"\n\n" for frame in zlib.decompress(packed).split(b"\n\n")[:-1]])
