"""The audit log of one server: records are queued in memory, and a thread writes them in order."""

import logging
import threading
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson

from cappella.config import Audit
from cappella.errors import AuditUnavailable
from cappella.telemetry.audit import transcript
from cappella.telemetry.audit.chain_file import ChainFile
from cappella.telemetry.audit.redaction import redact

RETRY_S = 1.0
MAX_QUEUED_LINES = 10_000
MAX_QUEUED_BYTES = 64 << 20
LOST = "lost"
"""The kind of a line that counts lines dropped because the queue was full."""

logger = logging.getLogger("cappella")


class AuditLog:
    """Opens the file named in the config. Raises ConfigError.

    While the file cannot be written, lines wait in memory up to a limit; lines beyond it are dropped and counted. Every
    RETRY_S it is checked that the file is still there; if it is required and is not, it cannot be written.
    """

    def __init__(self, config: Audit) -> None:
        self._config = config
        self._file = ChainFile(config.file, config.max_bytes, must_stay=config.required)
        self._changed = threading.Condition()
        self._queued: list[tuple[bytes, bytes | None]] = []
        self._queued_bytes = 0
        self._lost = 0
        self._is_closing = False
        self._is_failing = False
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Write the queued lines in one try; lines that cannot be written are lost, and their number is logged."""
        with self._changed:
            self._is_closing = True
            self._changed.notify()
        self._thread.join()
        self._file.close()

    def require_available(self) -> None:
        """Raises AuditUnavailable if the config requires the log and it cannot be written."""
        if self._config.required and (self._is_failing or not self._thread.is_alive()):
            raise AuditUnavailable("The audit log cannot be written, and server.audit.required is set.")

    def write(
        self,
        record: Mapping[str, Any],
        content: Callable[[], Mapping[str, Any]] | None = None,
        reply: bytes | None = None,
    ) -> None:
        """Queue one line without waiting for the disk. `content` is called and logged only with `log_content`.

        Then the answer in a forwarded `reply` is part of it; that is read by the thread, since a stream may have 8 MB of events.
        """
        line = {"time": _now(), **record}
        if content is not None and self._config.log_content:
            line["content"] = content()
        # As bytes: their size is known, and later changes to the objects have no effect.
        data, reply = orjson.dumps(line), reply if "content" in line else None
        size = len(data) + len(reply or b"")
        with self._changed:
            is_full = len(self._queued) >= MAX_QUEUED_LINES or self._queued_bytes + size > MAX_QUEUED_BYTES
            # After the first dropped line all are dropped until the thread has recorded their count in the right place.
            if is_full or self._lost:
                self._lost += 1
                return
            self._queued.append((data, reply))
            self._queued_bytes += size
            self._changed.notify()

    def _write_all(self) -> None:
        while True:
            with self._changed:
                if self._is_failing:
                    self._changed.wait_for(lambda: self._is_closing, RETRY_S)
                else:
                    self._changed.wait_for(lambda: self._queued or self._lost or self._is_closing, RETRY_S)
                is_last = self._is_closing
            if is_last:
                # The last try: a new file that says what happened is better than lost lines.
                self._file.must_stay = False
            self._write_once()
            if is_last and (self._is_failing or not self._queued):
                break
        if self._is_failing:
            unwritten = self._file.unwritten_lines + len(self._queued) + self._lost
            logger.error("audit log %s: %d lines could not be written and are lost", self._config.file, unwritten)

    def _write_once(self) -> None:
        try:
            if self._file.has_pending:
                self._file.flush(_now())
            self._file.append(self._drain(), _now())
        except OSError as error:
            self._note_failure(error)
        else:
            self._note_success()

    def _drain(self) -> list[Mapping[str, Any]]:
        """The queued records, then the number of lines dropped after them."""
        with self._changed:
            queued, self._queued, self._queued_bytes = self._queued, [], 0
            lost, self._lost = self._lost, 0
        records: list[Mapping[str, Any]] = [self._redact(_with_answer(*each)) for each in queued]
        return [*records, {"time": _now(), "kind": LOST, "lines": lost}] if lost else records

    def _redact(self, record: dict[str, Any]) -> Mapping[str, Any]:
        if "content" in record:
            record["content"] = redact(record["content"], self._config.redact)
        return record

    def _note_failure(self, error: OSError) -> None:
        if not self._is_failing:
            effect = (
                "new runs are rejected" if self._config.required else "runs continue and their lines wait in memory"
            )
            logger.error("audit log %s cannot be written (%s): %s", self._config.file, error, effect)
        self._is_failing = True

    def _note_success(self) -> None:
        if self._is_failing:
            logger.warning("audit log %s is being written again", self._config.file)
        self._is_failing = False


def _with_answer(data: bytes, reply: bytes | None) -> dict[str, Any]:
    record: dict[str, Any] = orjson.loads(data)
    if reply is not None:
        record["content"]["answer"] = transcript.answer(reply)
    return record


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
