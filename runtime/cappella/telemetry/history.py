"""Keeps each run that has ended in the run store, with its trace."""

import time
from collections.abc import Collection
from datetime import UTC, datetime

import orjson

from cappella.config import Config
from cappella.telemetry import trace, trace_types
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.telemetry.run_store import Row, RunStore
from cappella.telemetry.trace_types import RunContent, RunSummary, Trace, UnfinishedTrace
from cappella.types import Json

FAILED = "failed"


class History:
    """A keeper of runs in `traces`; with `content` of what was said in them, too."""

    def __init__(self, traces: RunStore, content: bool) -> None:
        self._traces = traces
        self._content = content

    def require(self) -> None:
        """What cannot be kept here keeps nothing from running."""

    def renewed(self, config: Config, added: Collection[str]) -> "History":
        return self

    def run_ended(self, ended: RunRecord) -> None:
        if ended.run_id is None:
            return
        now = time.time()
        short = _short(ended, ended.run_id, now)
        fusion = self._fusion(ended, ended.run_id, short["status"])
        content = self._content_of(ended)
        full: trace_types.Run = {**short, "usage": trace.usage(ended.calls), "fusion": fusion, **content}
        if self._content and ended.error:
            full["error"] = {"type": type(ended.error).__name__, "message": str(ended.error)}
        key_id = ended.key.id if ended.key else None
        self._traces.add(Row(ended.run_id, key_id, now, orjson.dumps(short), orjson.dumps(full)))

    def call_ended(self, ended: CallRecord) -> None:
        """A call is no run."""

    def _fusion(self, ended: RunRecord, run_id: str, status: str) -> Trace | UnfinishedTrace | Json:
        """As in a reply; of a run that failed, what is known."""
        whole: Trace | UnfinishedTrace
        if ended.run is not None:
            whole = trace.fusion(ended.run, trace.FullDetail())
        else:
            whole = trace.unfinished(run_id, ended.settings, status, ended.error)
        return whole if self._content else trace.without_content(whole)

    def _content_of(self, ended: RunRecord) -> RunContent:
        if not self._content:
            return {}
        answer = trace.responses([ended.run.answer])[0] if ended.run else None
        return {"messages": list(ended.prompt.messages), "answer": answer}


def _short(ended: RunRecord, run_id: str, ended_at: float) -> RunSummary:
    return {
        "id": run_id,
        "object": "run",
        "time": datetime.fromtimestamp(ended_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "model": f"cappella/{ended.settings.ensemble}",
        "key": ended.key.id if ended.key else None,
        "status": FAILED if ended.error else ended.status,
        "error": {"type": type(ended.error).__name__} if ended.error else None,
        "total_ms": trace.ms(ended.total_s),
    }
