"""The runs that are kept, and /api/runs, where each key reads its own."""

import re
import time
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from cappella.auth.gatekeeper import Gatekeeper
from cappella.config import Config
from cappella.errors import RequestError, UnknownRun
from cappella.gateway.formats.fields import Fusion
from cappella.gateway.reply_types import Trace, UnfinishedTrace
from cappella.gateway.request import credentials
from cappella.telemetry import trace
from cappella.telemetry.records import CallRecord, RunRecord
from cappella.telemetry.run_store import Reader, Row, RunStore
from cappella.types import Json

MAX_LISTED = 1000
LISTED = 20
FAILED = "failed"
_EVERYTHING = Fusion(include_intermediate_responses=True)


class History:
    """A keeper of runs in `traces`; with `content` of what was said in them, too."""

    def __init__(self, traces: RunStore, content: bool) -> None:
        self._traces = traces
        self._content = content

    def require(self) -> None:
        """What cannot be kept here keeps nothing from running."""

    def renewed(self, config: Config, comes: Collection[str]) -> "History":
        return self

    def run_ended(self, ended: RunRecord) -> None:
        if ended.run_id is None:
            return
        now = time.time()
        short = _short(ended, ended.run_id, now)
        fusion = self._fusion(ended, ended.run_id, str(short["status"]))
        full = {**short, "usage": trace.usage(ended.calls), "fusion": fusion, **self._said(ended)}
        key_id = ended.key.id if ended.key else None
        self._traces.add(Row(ended.run_id, key_id, now, orjson.dumps(short), orjson.dumps(full)))

    def call_ended(self, ended: CallRecord) -> None:
        """A call is no run."""

    def _fusion(self, ended: RunRecord, run_id: str, status: str) -> Mapping[str, Any]:
        """As in a reply; of a run that failed, what is known."""
        whole: Trace | UnfinishedTrace
        if ended.run is not None:
            whole = trace.fusion(ended.run, _EVERYTHING)
        else:
            whole = trace.unfinished(run_id, ended.settings, status, ended.error)
        return whole if self._content else trace.without_content(whole)

    def _said(self, ended: RunRecord) -> Json:
        if not self._content:
            return {}
        answer = trace.responses([ended.run.answer])[0] if ended.run else None
        error = {"error": {"type": type(ended.error).__name__, "message": str(ended.error)}} if ended.error else {}
        return {"messages": list(ended.prompt.messages), "answer": answer, **error}


def create_router(gatekeeper: Gatekeeper, traces: RunStore | None) -> APIRouter:
    router = APIRouter(prefix="/api/runs")

    def kept() -> RunStore:
        if traces is None:
            raise UnknownRun("This server keeps no runs: its config has no server.runs.", code="runs_not_kept")
        return traces

    async def reader(request: Request) -> Reader:
        key = await gatekeeper.who(*credentials(request), "run", "admin")
        return Reader(key is None or "admin" in key.scopes, key.id if key else None)

    @router.get("")
    async def recent(request: Request) -> Response:
        who = await reader(request)
        rows = await kept().recent(_limit(request), who)
        return _json(b'{"object":"list","data":[' + b",".join(rows) + b"]}")

    @router.get("/{run_id}")
    async def one(run_id: str, request: Request) -> Response:
        who = await reader(request)
        found = await kept().find(run_id, who)
        if found is None:
            raise UnknownRun(f"There is no run {run_id!r} here.", "run_id", "run_not_found")
        return _json(found)

    return router


def _short(ended: RunRecord, run_id: str, ended_at: float) -> Json:
    return {
        "id": run_id,
        "object": "run",
        "time": datetime.fromtimestamp(ended_at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "model": f"cappella/{ended.settings.ensemble}",
        "key": ended.key and ended.key.id,
        "status": FAILED if ended.error else ended.status,
        "error": {"type": type(ended.error).__name__} if ended.error else None,
        "total_ms": trace.ms(ended.total_s),
    }


def _limit(request: Request) -> int:
    for name in request.query_params:
        if name != "limit":
            raise RequestError(f"{name} is not known here: only limit is.", name, "unknown_field")
    text = request.query_params.get("limit", str(LISTED))
    if not re.fullmatch("[1-9][0-9]{0,3}", text) or int(text) > MAX_LISTED:
        raise RequestError(f"limit must be a number from 1 to {MAX_LISTED}.", "limit")
    return int(text)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
