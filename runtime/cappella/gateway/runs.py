"""`GET /api/runs` and `GET /api/runs/{id}`: recorded runs; a key without the admin scope reads its own only."""

import re

from starlette.requests import Request
from starlette.responses import Response

from cappella.auth.gatekeeper import Gatekeeper
from cappella.auth.keys import Reader
from cappella.errors import RequestError, UnknownRun
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.request import credentials
from cappella.telemetry.run_store import RunStore

MAX_LISTED = 1000
DEFAULT_LISTED = 20


def create_router(gatekeeper: Gatekeeper, runs: RunStore | None) -> PlainRoutes:
    """The endpoints. Without `runs` they reply 404, runs_not_kept."""
    router = PlainRoutes("/api/runs")

    def store() -> RunStore:
        if runs is None:
            raise UnknownRun("This server keeps no runs: set server.runs in its config.", code="runs_not_kept")
        return runs

    async def authenticate(request: Request) -> Reader:
        key = await gatekeeper.authenticate(*credentials(request), "run", "admin")
        return Reader.of(key)

    @router.get("")
    async def recent(request: Request) -> Response:
        reader = await authenticate(request)
        rows = await store().recent(limit_of(request, MAX_LISTED), reader)
        return _json(b'{"object":"list","data":[' + b",".join(rows) + b"]}")

    @router.get("/{run_id}")
    async def one(request: Request) -> Response:
        reader = await authenticate(request)
        run_id = request.path_params["run_id"]
        run = await store().find(run_id, reader)
        if run is None:
            raise UnknownRun(f"No run {run_id!r} found.", "run_id", "run_not_found")
        return _json(run)

    return router


def limit_of(request: Request, most: int) -> int:
    """The parameter `limit`, from 1 to `most`. Raises RequestError, also for any other parameter."""
    for name in request.query_params:
        if name != "limit":
            raise RequestError(
                f"{name} is not a parameter of this endpoint: the only one is limit.", name, "unknown_field"
            )
    text = request.query_params.get("limit", str(DEFAULT_LISTED))
    if not re.fullmatch("[1-9][0-9]{0,3}", text) or int(text) > most:
        raise RequestError(f"limit must be a number from 1 to {most}.", "limit")
    return int(text)


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
