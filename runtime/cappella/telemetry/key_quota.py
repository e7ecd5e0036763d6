"""What the run store keeps of one key at most: beyond that its oldest runs and responses go."""

import logging
import sqlite3

KEPT_SHARE = 0.9
"""What is left then: the next ones are written without another look at all of them."""

_SIZES = """
SELECT kind, id, bytes FROM (
    SELECT 'runs' AS kind, id, ended_at AS at, length(summary) + length(trace) AS bytes, 1 AS is_over
    FROM runs WHERE key_id IS :key
    UNION ALL
    SELECT 'responses', id, created_at, length(input) + length(response) + coalesce(
        (SELECT sum(length(events)) FROM response_events WHERE response_id = responses.id), 0
    ), status NOT IN ('queued', 'in_progress')
    FROM responses WHERE key_id IS :key
) ORDER BY is_over, at DESC
"""
logger = logging.getLogger("cappella")


class KeyQuota:
    """Keeps what the file has of each key within `max_bytes`. For the file's own thread."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._most_bytes = dict[str | None, int]()
        """Of each key. What was deleted since still counts, until it matters."""
        self._told: set[str | None] = set()
        self.has_deleted = False

    def added(self, db: sqlite3.Connection, key_id: str | None, size_bytes: int) -> None:
        """Count what has just been written; where the key has too much, delete its oldest. A response that runs stays."""
        known = self._most_bytes.get(key_id)
        if known is not None and known + size_bytes <= self._max_bytes:
            self._most_bytes[key_id] = known + size_bytes
            return
        found: list[tuple[str, str, int]] = db.execute(_SIZES, {"key": key_id}).fetchall()
        self._most_bytes[key_id] = sum(size for *_, size in found)
        if self._most_bytes[key_id] > self._max_bytes:
            self._most_bytes[key_id] = self._shrink(db, found)
            self._tell(key_id)

    def _shrink(self, db: sqlite3.Connection, found: list[tuple[str, str, int]]) -> int:
        """How many bytes are left; `found` has what stays longest first."""
        kept_bytes, gone = 0, list[tuple[str, str]]()
        for place, (kind, name, size) in enumerate(found):
            if place and kept_bytes + size > self._max_bytes * KEPT_SHARE:
                gone.append((kind, name))
            else:
                kept_bytes += size
        runs = [(name,) for kind, name in gone if kind == "runs"]
        responses = [(name,) for kind, name in gone if kind == "responses"]
        db.executemany("DELETE FROM runs WHERE id = ?", runs)
        db.executemany("DELETE FROM response_events WHERE response_id = ?", responses)
        db.executemany("DELETE FROM responses WHERE id = ? AND status NOT IN ('queued', 'in_progress')", responses)
        self.has_deleted = bool(gone)
        return kept_bytes

    def _tell(self, key_id: str | None) -> None:
        if key_id not in self._told:
            self._told.add(key_id)
            whose = f"of key {key_id}" if key_id else "of requests without a key"
            logger.warning("server.runs: max_bytes_per_key is reached: the oldest runs and responses %s go", whose)
