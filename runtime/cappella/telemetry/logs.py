"""What a server says as lines of JSON on standard error, for a log shipper; never what was asked or answered."""

import json
import logging
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from cappella.telemetry.records import RequestRecord, RunRecord

logger = logging.getLogger("cappella")
MAX_PATH = 200


def as_json() -> None:
    """From now on everything that this process logs, warns of or dies of is a line of JSON."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    sys.excepthook = _died


def tell(event: str, message: str, facts: Mapping[str, Any], level: int = logging.INFO) -> None:
    """One line; `event` is a word for programs, `facts` become keys of the line."""
    logger.log(level, message, extra={"event": event, "facts": facts})


class JsonLines(logging.Formatter):
    """Each record as one JSON object: time, level, event, message, and the facts that came with it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", record.name),
            "message": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        # Not orjson: it refuses the names of files that are no text, and what it refuses would be no line.
        return json.dumps(line, default=str)


def visited(record: RequestRecord) -> None:
    """The line of a request; without its query, where a key may stand."""
    path = record.path[:MAX_PATH]
    facts: dict[str, Any] = {"method": record.method, "path": path, "status": record.status_code}
    facts["ms"] = round(record.total_s * 1000, 1)
    told = {"key_id": record.key_id, "asked": record.asked, "error": record.error}
    facts |= {name: value for name, value in told.items() if value is not None}
    tell("request", f"{record.method} {path} {record.status_code}", facts)


def run_ended(what: RunRecord) -> None:
    """The line of a run; what is said to one model alone has its request's line."""
    facts: dict[str, Any] = {
        "run_id": what.run_id,
        "key_id": what.key.id if what.key else None,
        "ensemble": what.settings.ensemble,
        "status": what.status,
        "seconds": round(what.total_s, 4),
        "prompt_tokens": sum(call.usage.prompt_tokens for call in what.calls),
        "completion_tokens": sum(call.usage.completion_tokens for call in what.calls),
        "failed": {failure.name: failure.reason for failure in what.failures},
    }
    if what.run:
        facts["first_token_s"] = what.run.timings.first_token_s
        facts["failure_reason"] = what.run.failure_reason
    tell("run", f"{what.run_id} {what.status}", facts)


def _died(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    logger.critical("%s", error, exc_info=(kind, error, trace), extra={"event": "died"})
