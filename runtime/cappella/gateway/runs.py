"""`GET /api/runs` and `/api/runs/{id}`: the runs that are kept; each key reads its own."""

import re

from fastapi import APIRouter, Request, Response

from cappella.auth.gatekeeper import Gatekeeper
from cappella.errors import RequestError, UnknownRun
from cappella.gateway.request import credentials
from cappella.telemetry.run_store import Reader, RunStore

MAX_LISTED = 1000
DEFAULT_LISTED = 20


def create_router(gatekeeper: Gatekeeper, traces: RunStore | None) -> APIRouter:
    router = APIRouter(prefix="/api/runs")

    def kept() -> RunStore:
        if traces is None:
            raise UnknownRun("This server keeps no runs: its config has no server.runs.", code="runs_not_kept")
        return traces

    async def reader(request: Request) -> Reader:
        key = await gatekeeper.authenticate(*credentials(request), "run", "admin")
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


def _limit(request: Request) -> int:
    for name in request.query_params:
        if name != "limit":
            raise RequestError(f"{name} is not known here: only limit is.", name, "unknown_field")
    text = request.query_params.get("limit", str(DEFAULT_LISTED))
    if not re.fullmatch("[1-9][0-9]{0,3}", text) or int(text) > MAX_LISTED:
        raise RequestError(f"limit must be a number from 1 to {MAX_LISTED}.", "limit")
    return int(text)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
