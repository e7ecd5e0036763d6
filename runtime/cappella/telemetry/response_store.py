"""Stores responses with the conversation that led to them, in the file of the run store, for as long as that keeps runs."""

import logging
import secrets
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from cappella.errors import RunsUnavailable
from cappella.telemetry.run_store import RunStore
from cappella.types import Json

UNFINISHED = ("queued", "in_progress")
_COLUMNS = "id, key_id, created_at, status, input, response, server"
_IS_UNFINISHED = "status IN ('queued', 'in_progress')"
T = TypeVar("T")
logger = logging.getLogger("cappella")
_OWN = "id = ? AND key_id IS ?"


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A response of one key; `items` is the whole conversation that it answers, with that of earlier responses."""

    id: str
    key_id: str | None
    created_at: float
    status: str
    items: Sequence[Json]
    response: Json
    is_own: bool = True
    """Whether this server has begun it."""

    @property
    def is_finished(self) -> bool:
        return self.status not in UNFINISHED

    @property
    def shown(self) -> Json:
        """The response as clients get it."""
        return {**self.response, "status": self.status}


class ResponseStore:
    """Responses of one server. Those that it has not finished when it ends are failed by the next server of the file."""

    def __init__(self, runs: RunStore) -> None:
        self._runs = runs
        self._server = secrets.token_hex(8)

    def add(self, make: Callable[[], StoredResponse]) -> None:
        """Queue what `make` returns; later reads see it. One that cannot be written is dropped, which is logged once."""
        self._runs.write(lambda db: self._insert(db, make()))

    async def create(self, make: Callable[[], StoredResponse]) -> None:
        """Write what `make` returns now. Raises RunsUnavailable."""
        await self._call(lambda db: self._insert(db, make()))

    def begin(self, response_id: str) -> None:
        """Note that a queued response is in progress."""
        query = "UPDATE responses SET status = 'in_progress' WHERE id = ? AND status = 'queued'"
        self._runs.write(lambda db: db.execute(query, (response_id,)))

    def finish(self, response_id: str, response: Json) -> None:
        """Replace an unfinished response; one that is finished or deleted stays so."""
        query = f"UPDATE responses SET status = ?, response = ? WHERE id = ? AND {_IS_UNFINISHED}"
        values = (response["status"], orjson.dumps(response), response_id)
        self._runs.write(lambda db: db.execute(query, values))

    async def find(self, response_id: str, key_id: str | None) -> StoredResponse | None:
        """The response; None if there is none of this key. Raises RunsUnavailable."""
        query = f"SELECT {_COLUMNS} FROM responses WHERE {_OWN}"
        row = await self._call(lambda db: db.execute(query, (response_id, key_id)).fetchone())
        return self._stored(row) if row else None

    async def delete(self, response_id: str, key_id: str | None) -> bool:
        """Whether there was one of this key."""
        query = f"DELETE FROM responses WHERE {_OWN}"
        return bool(await self._call(lambda db: db.execute(query, (response_id, key_id)).rowcount))

    async def fail_interrupted(self, error: Json) -> None:
        """Mark what earlier servers have not finished as failed with this error."""
        await self._call(lambda db: self._fail_interrupted(db, error))

    def _fail_interrupted(self, db: sqlite3.Connection, error: Json) -> None:
        query = f"SELECT {_COLUMNS} FROM responses WHERE {_IS_UNFINISHED} AND server <> ?"
        for stored in [self._stored(row) for row in db.execute(query, (self._server,))]:
            response = orjson.dumps({**stored.response, "error": error})
            db.execute("UPDATE responses SET status = 'failed', response = ? WHERE id = ?", (response, stored.id))

    async def _call(self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._runs.call(work)
        except (OSError, sqlite3.Error) as error:
            logger.error("server.runs: responses cannot be read or written: %s", error)
            raise RunsUnavailable("The server cannot read or write its responses now: see its log.") from error

    def _insert(self, db: sqlite3.Connection, stored: StoredResponse) -> None:
        items, response = orjson.dumps(stored.items), orjson.dumps(stored.response)
        values = (stored.id, stored.key_id, stored.created_at, stored.status, self._server, items, response)
        db.execute("INSERT OR REPLACE INTO responses VALUES (?,?,?,?,?,?,?)", values)

    def _stored(self, row: Sequence[Any]) -> StoredResponse:
        response_id, key_id, created_at, status, items, response, server = row
        parsed = orjson.loads(items), orjson.loads(response)
        return StoredResponse(response_id, key_id, created_at, status, *parsed, is_own=server == self._server)
