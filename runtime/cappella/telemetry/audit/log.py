"""The audit log of one server: what happened is queued at once, and written in its order by a thread of its own."""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from cappella.config import Audit
from cappella.errors import AuditUnavailable
from cappella.telemetry.audit.chain_file import ChainFile
from cappella.telemetry.audit.redaction import redacted

RETRY_S = 1.0
MAX_WAITING_LINES = 10_000
MAX_WAITING_BYTES = 64 << 20
LOST = "lost"
"""The kind of a line that tells how many there was no room for, in memory or on the disk."""

logger = logging.getLogger("cappella")


class AuditLog:
    """Opens the file that the config names. Raises ConfigError if that cannot be.

    While it cannot be written to, lines wait in memory, up to a bound; what goes beyond is counted in a later line.
    """

    def __init__(self, config: Audit) -> None:
        self._config = config
        self._file = ChainFile(config.file, config.max_bytes)
        self._changed = threading.Condition()
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._lost = 0
        self._is_closing = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write what waits, once; what cannot be written then is lost, and said to be."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        self._file.close()

    def require(self) -> None:
        """Raises AuditUnavailable if nothing may happen that cannot be logged, and just now it could not."""
        if self._config.required and (self._is_failing or not self._thread.is_alive()):
            raise AuditUnavailable("The audit log cannot be written just now, and nothing may run without it.")

    def write(self, record: Mapping[str, Any], content: Callable[[], Mapping[str, Any]] | None = None) -> None:
        """Queue one line; never waits for the disk. What `content` gives is part of it only if the config says so."""
        line = {"time": _now(), **record}
        if content is not None and self._config.log_content:
            line["content"] = content()
        # As bytes: they can be counted, and nobody changes them any more.
        data = orjson.dumps(line)
        with self._changed:
            is_full = len(self._waiting) >= MAX_WAITING_LINES or self._waiting_bytes + len(data) > MAX_WAITING_BYTES
            # After one that was lost none is taken, until its place among the others is written down.
            if is_full or self._lost:
                self._lost += 1
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            self._changed.notify()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                if self._is_failing:
                    self._changed.wait_for(lambda: self._is_closing, RETRY_S)
                else:
                    self._changed.wait_for(lambda: self._waiting or self._lost or self._is_closing)
                is_last = self._is_closing
            self._write_once()
            if is_last and (self._is_failing or not self._waiting):
                break
        if self._is_failing:
            unwritten = self._file.owed_lines + len(self._waiting) + self._lost
            logger.error("audit log %s: %d lines could not be written and are lost", self._config.file, unwritten)

    def _write_once(self) -> None:
        try:
            if self._file.owes:
                self._file.flush()
            self._file.append(self._taken(), _now())
        except OSError as error:
            self._tell_failing(error)
        else:
            self._tell_well()

    def _taken(self) -> list[Mapping[str, Any]]:
        """What waits, and how much was lost after it: that began when there was no more room."""
        with self._changed:
            waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
            lost, self._lost = self._lost, 0
        records: list[Mapping[str, Any]] = [self._redacted(orjson.loads(data)) for data in waiting]
        return [*records, {"time": _now(), "kind": LOST, "lines": lost}] if lost else records

    def _redacted(self, record: dict[str, Any]) -> Mapping[str, Any]:
        if "content" in record:
            record["content"] = redacted(record["content"], self._config.redact)
        return record

    def _tell_failing(self, error: OSError) -> None:
        if not self._is_failing:
            meanwhile = "nothing new may run" if self._config.required else "runs go on and their lines wait in memory"
            logger.error("audit log %s cannot be written (%s): %s", self._config.file, error, meanwhile)
        self._is_failing = True

    def _tell_well(self) -> None:
        if self._is_failing:
            logger.warning("audit log %s is written again", self._config.file)
        self._is_failing = False


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
