"""`/v1/responses/{id}`: a key's own responses, where they are kept: read, polled, cancelled, deleted, and their input listed."""

import re
from collections.abc import Callable
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.errors import RequestError, UnknownRun
from cappella.gateway import pages
from cappella.gateway.kept_responses import HOW_TO_KEEP, KeptResponses
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.request import event_stream
from cappella.gateway.state import GatewayState
from cappella.types import Json

DEFAULT_LISTED = 20
MAX_LISTED = 100
PATH = "/v1/responses/{response_id}"


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    """The endpoints. Where no responses are kept, they reply 404, runs_not_kept."""
    router = PlainRoutes(PATH)

    async def caller(request: Request) -> tuple[KeptResponses, str | None, str]:
        state = current()
        key = await state.authenticate(request, "run")
        if state.responses is None:
            raise UnknownRun(f"This server keeps no responses: {HOW_TO_KEEP}.", code="runs_not_kept")
        return state.responses, key.id if key else None, request.path_params["response_id"]

    @router.get("")
    async def one(request: Request) -> Response:
        responses, key_id, response_id = await caller(request)
        if request.query_params.get("stream", "false").lower() in ("false", "0", ""):
            return _json((await responses.find(response_id, key_id)).shown)
        frames = await responses.events(response_id, key_id, _number_after(request.query_params))
        return event_stream(frames, current().config.server.client_timeout_s)

    @router.delete("")
    async def delete(request: Request) -> Response:
        responses, key_id, response_id = await caller(request)
        await responses.delete(response_id, key_id)
        return _json(orjson.dumps({"id": response_id, "object": "response", "deleted": True}))

    @router.post("/cancel")
    async def cancel(request: Request) -> Response:
        responses, key_id, response_id = await caller(request)
        return _json(await responses.cancel(response_id, key_id))

    @router.get("/input_items")
    async def input_items(request: Request) -> Response:
        responses, key_id, response_id = await caller(request)
        page = _page(await responses.items(response_id, key_id), request.query_params)
        return _json(orjson.dumps(page))

    return router


def _page(items: Any, asked: Any) -> Json:
    """A page of the list, the latest item first unless `order` is `asc`."""
    limit, after = pages.limit_of(asked, DEFAULT_LISTED, MAX_LISTED), asked.get("after")
    left = list(items if pages.is_ascending(asked) else reversed(items))
    if after is not None:
        places = [place for place, item in enumerate(left) if item["id"] == after]
        if not places:
            raise pages.unknown_start("after")
        left = left[places[0] + 1 :]
    return pages.page(left, limit)


def _number_after(asked: Any) -> int:
    """The number of the first event that the client has not seen."""
    seen = asked.get("starting_after", "")
    if not re.fullmatch("[0-9]{0,9}", seen, re.ASCII):
        raise RequestError("starting_after must be the sequence_number of an event.", "starting_after")
    return int(seen) + 1 if seen else 0


def _json(body: bytes) -> Response:
    return Response(body, media_type="application/json")
