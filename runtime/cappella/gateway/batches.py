"""`/v1/batches`: rows of a file that are answered when there is room, as in OpenAI's API."""

import asyncio
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from cappella.auth.keys import Key
from cappella.batch.types import NewBatch
from cappella.errors import BatchesUnavailable, Forbidden, RequestError, UnknownModel, cause
from cappella.gateway import pages, pooling
from cappella.gateway.batch_access import Access, access, access_of
from cappella.gateway.batch_input import Check, read_rows
from cappella.gateway.batch_types import BatchObject
from cappella.gateway.formats import policy
from cappella.gateway.formats.batches import (
    FIELDS,
    RESUME_FIELDS,
    BatchRequest,
    ResumeRequest,
    window_s,
)
from cappella.gateway.limits import require_shallow
from cappella.gateway.model_list import callable_names, named_model
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.state import GatewayState
from cappella.gateway.tasks import require_able
from cappella.gateway.validation import parse
from cappella.telemetry.audit.actions import OperatorActions
from cappella.types import Json

PATH = "/v1/batches"
DEFAULT_LISTED = 20
MAX_LISTED = 100


def create_router(current: Callable[[], GatewayState], actions: OperatorActions) -> PlainRoutes:
    router = PlainRoutes(PATH)

    @router.post("")
    async def create(request: Request) -> BatchObject:
        async with received(current, request) as incoming:
            asked = access_of(current(), incoming.key, actions)
            # What is not known here changes nothing, as an unknown field of a request does.
            reading = policy.read(FIELDS, incoming.wire, asked.state.config.server.refuses_unknown_fields)
            parsed = parse(BatchRequest, reading)
        await asked.admit()
        with actions.recorded("batch.create") as line:
            made = await _create(asked, parsed)
            line["batch"] = made["id"]
        return made

    @router.get("")
    async def listed(request: Request) -> Response:
        return await _listed(await access(current, actions, request, "run", "admin"), request.query_params)

    @router.get("/{batch_id}")
    async def one(request: Request) -> BatchObject:
        asked = await access(current, actions, request, "run", "admin")
        return asked.shown(await asked.batch(request.path_params["batch_id"], "openai"))

    @router.post("/{batch_id}/cancel")
    async def cancel(request: Request) -> BatchObject:
        asked = await access(current, actions, request, "run", "admin")
        batch = await asked.batch(request.path_params["batch_id"], "openai")
        with actions.recorded("batch.cancel", batch=batch.id):
            return asked.shown(await asked.store.cancel(batch.id))

    @router.post("/{batch_id}/resume")
    async def resume(request: Request) -> BatchObject:
        async with received(current, request) as incoming:
            asked = access_of(current(), incoming.key, actions)
            parse(ResumeRequest, policy.read(RESUME_FIELDS, incoming.wire, True))
        batch = await asked.batch(request.path_params["batch_id"], "openai", "anthropic")
        with actions.recorded("batch.resume", batch=batch.id):
            return asked.shown(await asked.store.accept_weights(batch.id))

    return router


async def _create(asked: Access, wanted: BatchRequest) -> BatchObject:
    """A batch of the rows of its file; one that has mistakes has failed, and names them."""
    file = await asked.file(wanted.input_file_id, "batch")
    server, check = asked.state.config.server, body_check(asked.state, asked.key, wanted.endpoint)
    path = asked.store.files.path_of(file.id)
    most = (asked.settings.max_rows, server.max_body_bytes)
    try:
        found = await asyncio.to_thread(read_rows, path, wanted.endpoint, check, *most)
    except OSError as error:
        raise BatchesUnavailable(f"The server cannot read {file.id} now ({cause(error)}).") from error
    new = NewBatch(
        key_id=asked.key_id,
        api="openai",
        endpoint=wanted.endpoint,
        input_file_id=file.id,
        window_s=window_s(wanted.completion_window),
        metadata=wanted.metadata,
        output_expires_s=wanted.output_expires_after.seconds if wanted.output_expires_after else None,
        errors=found.problems,
    )
    return asked.shown(await asked.store.create(new, [] if found.problems else found.rows))


async def _listed(asked: Access, query: Mapping[str, str]) -> Response:
    limit = pages.limit_of(query, DEFAULT_LISTED, MAX_LISTED)
    found = await asked.store.listed(asked.reader, "openai", query.get("after"), limit + 1)
    if found is None:
        raise pages.unknown_start("after")
    return await pages.sent(pages.page([dict(asked.shown(each)) for each in found], limit), len(found))


def body_check(state: GatewayState, key: Key | None, path: str) -> Check:
    """Raises RequestError and Forbidden for a body that is too deep, or whose model cannot answer this key on this path."""
    known: dict[str, Exception | None] = {}
    asked_path = pooling.APIS[path].engine_path if path in pooling.APIS else path

    def fault_of(body: Json) -> Exception | None:
        try:
            model = named_model(state.config, body)
            if model not in callable_names(state.config, None):
                raise UnknownModel(model, callable_names(state.config, key))
            require_able(state, model, asked_path, key)
            if key and not key.may_call(model):
                raise Forbidden(f"The key {key.name} may not call {model}.", "model_not_allowed")
        except (RequestError, Forbidden) as error:
            return error
        return None

    def check(body: Json) -> None:
        require_shallow(body, state.config.server.limits)
        name = str(body.get("model"))
        if name not in known:
            known[name] = fault_of(body)
        if fault := known[name]:
            raise fault

    return check
