"""Stores each ended run with its trace in the run store."""

import time
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime

import orjson

from cappella.config import Config
from cappella.ensemble.run import Run
from cappella.telemetry import trace, trace_types
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.telemetry.run_store import Row, RunStore
from cappella.telemetry.trace_types import RunContent, RunSummary, Trace, UnfinishedTrace
from cappella.types import Json

FAILED = "failed"


class History:
    """A `RunObserver` that stores runs; prompts, answers and error messages only with `content`."""

    def __init__(self, store: RunStore, content: bool) -> None:
        self._store = store
        self._content = content

    def require_available(self) -> None:
        """Never raises: a failing store does not prevent runs."""

    def for_config(self, config: Config, added: Collection[str]) -> "History":
        return self

    def run_ended(self, record: RunRecord) -> None:
        if record.run_id is None:
            return
        now = time.time()
        summary = _summary(record, record.run_id, now)
        fusion = self._fusion(record, record.run_id, summary["status"])
        content = self._content_of(record)
        full: trace_types.Run = {**summary, "usage": _usage(record), "fusion": fusion, **content}
        if self._content and record.error:
            full["error"] = {"type": type(record.error).__name__, "message": str(record.error)}
        key_id = record.key.id if record.key else None
        self._store.add(Row(record.run_id, key_id, now, orjson.dumps(summary), orjson.dumps(full)))

    def call_ended(self, record: CallRecord) -> None:
        """Calls of single models are not stored."""

    def _fusion(self, record: RunRecord, run_id: str, status: str) -> Trace | UnfinishedTrace | Json:
        """The `fusion` object as in a reply; for a failed run, the parts that are known."""
        fusion: Trace | UnfinishedTrace
        if record.run is not None:
            fusion = trace.fusion(_with_all_calls(record, record.run), trace.FullDetail())
        else:
            fusion = trace.unfinished(run_id, record.settings, status, record.error, record)
        return fusion if self._content else trace.without_content(fusion)

    def _content_of(self, record: RunRecord) -> RunContent:
        if not self._content:
            return {}
        answer = trace.responses([record.run.answer])[0] if record.run else None
        return {"messages": list(record.prompt.messages), "answer": answer}


def _usage(record: RunRecord) -> trace_types.Usage:
    """As in a reply; for a failed run, which has no answer, what it cost."""
    if record.run is not None:
        return trace.run_usage(_with_all_calls(record, record.run))
    return {**trace.cost(record.calls), "fusion_details": trace.call_costs(record.calls)}


def _with_all_calls(record: RunRecord, run: Run) -> Run:
    """The run with the record's calls, which have estimates of those that broke off."""
    return replace(run, calls=record.calls)


def _summary(record: RunRecord, run_id: str, ended_at: float) -> RunSummary:
    return {
        "id": run_id,
        "object": "run",
        "time": datetime.fromtimestamp(ended_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "model": record.settings.called,
        "key": record.key.id if record.key else None,
        "status": FAILED if record.error else record.status,
        "error": {"type": type(record.error).__name__} if record.error else None,
        "total_ms": trace.ms(record.total_s),
    }
