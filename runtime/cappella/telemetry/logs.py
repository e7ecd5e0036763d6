"""JSON log lines on standard error, for a log shipper; without prompts and answers."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from cappella.telemetry.records import RequestRecord, RunRecord

logger = logging.getLogger("cappella")
MAX_PATH_CHARS = 200


def use_json() -> None:
    """Turn all logs, warnings and uncaught exceptions of this process into JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _log_crash


def log_event(event: str, message: str, fields: Mapping[str, Any], level: int = logging.INFO) -> None:
    """Log one line; `event` names its kind for programs, `fields` become keys of the line."""
    logger.log(level, message, extra={"event": event, "fields": fields})


class JsonLines(logging.Formatter):
    """Each record as one JSON object: time, level, event, message, and the event's fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Not orjson: it raises for file names that are not valid UTF-8, and the line would be lost.
        return json.dumps(line, default=str)


def request_ended(record: RequestRecord) -> None:
    """Log a request; without its query string, which may hold a key."""
    path = record.path[:MAX_PATH_CHARS]
    fields: dict[str, Any] = {"method": record.method, "path": path, "status": record.status_code}
    fields["ms"] = round(record.total_s * 1000, 1)
    optional = {"key_id": record.key_id, "asked": record.target, "error": record.error}
    fields |= {name: value for name, value in optional.items() if value is not None}
    log_event("request", f"{record.method} {path} {record.status_code}", fields)


def run_ended(record: RunRecord) -> None:
    """Log a run. A call of a single model has only its request's line."""
    fields: dict[str, Any] = {
        "run_id": record.run_id,
        "key_id": record.key.id if record.key else None,
        "ensemble": record.settings.ensemble,
        "status": record.status,
        "seconds": round(record.total_s, 4),
        "prompt_tokens": sum(call.usage.prompt_tokens for call in record.calls),
        "completion_tokens": sum(call.usage.completion_tokens for call in record.calls),
        "failed": {failure.name: failure.reason for failure in record.failures},
    }
    if record.run:
        fields["first_token_s"] = record.run.timings.first_token_s
        fields["failure_reason"] = record.run.failure_reason
    log_event("run", f"{record.run_id} {record.status}", fields)


def _log_crash(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("%s", error, exc_info=(kind, error, trace), extra={"event": "died"})
