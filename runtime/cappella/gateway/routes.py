"""The endpoints that models answer: fields in, pipeline or engine, reply out."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import orjson
from fastapi import APIRouter, Request, Response

from cappella.auth.keys import Key
from cappella.config import Ensemble
from cappella.config.options import Overrides
from cappella.ensemble.events import Emit
from cappella.ensemble.run import Run
from cappella.ensemble.settings import resolve
from cappella.errors import CappellaError, RequestError, UnknownModel
from cappella.gateway import images, model_list, proxy
from cappella.gateway.admission import costs
from cappella.gateway.formats import fields, sse
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.gateway.formats.sse import EventEncoder
from cappella.gateway.limits import answers, require_modest
from cappella.gateway.model_list import PREFIX
from cappella.gateway.request import Stream, json_object, read, require_json, unless_gone
from cappella.gateway.state import GatewayState
from cappella.gateway.validation import parse
from cappella.telemetry import records
from cappella.types import Json, Prompt, Sampling


class EnsembleRequest(Protocol):
    """A request to an ensemble, whatever API it came by."""

    @property
    def stream(self) -> bool: ...
    @property
    def watches_panel(self) -> bool: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def overrides(self) -> Overrides: ...

    def whole(self, run: Run) -> Mapping[str, Any]:
        """The reply in one piece."""
        ...

    def event_encoder(self) -> EventEncoder:
        """The reply in pieces."""
        ...


# What an ensemble may be asked through each API; /v1/completions has no conversation to put to a panel.
APIS: Mapping[str, type[fields.FusionRequest] | None] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": None,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
}


def create_router(current: Callable[[], GatewayState], reload: Callable[[], Awaitable[dict[str, Any]]]) -> APIRouter:
    """The endpoints. Each request is answered with the parts that are current when it comes."""
    router = APIRouter()

    for path in APIS:
        router.add_api_route(path, _answering(current, path), methods=["POST"])

    @router.get("/v1/models")
    async def models(request: Request) -> dict[str, Any]:
        parts = current()
        key = await parts.authenticate(request, "run")
        return {
            "object": "list",
            "data": [
                each
                for each in model_list.models(parts.config, parts.created)
                if key is None or key.may_call(each["id"])
            ],
        }

    @router.post("/api/reload")
    async def reload_config(request: Request) -> dict[str, Any]:
        await current().authenticate(request, "admin")
        return await reload()

    return router


def _answering(current: Callable[[], GatewayState], path: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one API: a model by its own name, or an ensemble."""

    async def answer(request: Request) -> Response:
        parts = current()
        key = await parts.authenticate(request, "run")
        require_json(request)
        server = parts.config.server
        body = await read(request, server.max_body_bytes, server.client_timeout_s)
        wire = json_object(body)
        # Its body may have taken its time.
        parts = current()
        require_modest(wire)
        if images.put_in(wire, parts.config.server.image_folder, server.max_body_bytes):
            body = orjson.dumps(wire)
        model = wire.get("model")
        if not isinstance(model, str):
            raise RequestError("model must be a string.", "model")
        if model in parts.engines:
            if not parts.engines[model].takes(path):
                raise RequestError(f"The server of {model} has no {path}: use /v1/chat/completions.", "model")
            parts.admission.require_place(model, key.id if key else None)
            proxy.require_forwardable(path, wire)
            await parts.gatekeeper.admit(key, [model])
            return await _forward(parts, model, request, path, body, wire, key)
        name = model.removeprefix(PREFIX)
        if not model.startswith(PREFIX) or name not in parts.config.ensembles:
            raise UnknownModel(model, _known(parts, key))
        parts.admission.require_place(model, key.id if key else None)
        schema = APIS[path]
        if schema is None:
            raise RequestError(f"{path} is for single models: ask {model} through /v1/chat/completions.", "model")
        asked: Any = parse(schema, wire)
        await parts.gatekeeper.admit(key, [model, *_chosen(asked.overrides, parts.config.ensembles[name])])
        return await _ensemble(parts, request, asked, name, key)

    return answer


def _chosen(overrides: Overrides, ensemble: Ensemble) -> list[str]:
    """Models that a request names which are not the ensemble's own."""
    named = [*(overrides.panel or ()), *([overrides.judge] if overrides.judge else [])]
    own = {model for _, model in ensemble.models}
    return [model for model in named if model not in own]


async def _ensemble(
    parts: GatewayState, request: Request, asked: EnsembleRequest, name: str, key: Key | None
) -> Response:
    models = parts.config.models_by_name
    ensemble = parts.config.ensembles[name]
    prompt = replace(asked.prompt, watched=asked.stream)
    settings = resolve(name, ensemble, models, asked.overrides, prompt, asked.sampling)
    settings = settings.model_copy(update={"panel_watched": asked.watches_panel})

    takes = costs(settings, parts.config.host_of)

    async def run(emit: Emit) -> Run:
        room = parts.admission.room(PREFIX + name, takes, key=key.id if key else None)
        async with parts.in_flight.run_inside() as begin, records.current().waiting(PREFIX + name, room):
            begin(settings.deadline_s)
            return await parts.recorder.run(parts.pipeline, key, prompt, settings, emit)

    if not asked.stream:
        result = await unless_gone(request, run(lambda event: None))
        return Response(orjson.dumps(asked.whole(result)), media_type="application/json")
    frames = sse.stream(run, asked.event_encoder(), parts.describe)
    # The first frame is awaited here, so that an early failure still gets its own status code.
    first = await unless_gone(request, anext(frames))
    how = {"media_type": "text/event-stream", "headers": _NO_BUFFERING}
    return Stream(_resume(first, frames), parts.config.server.client_timeout_s, **how)


_NO_BUFFERING = {"X-Accel-Buffering": "no"}


async def _forward(
    parts: GatewayState, model: str, request: Request, path: str, body: bytes, wire: Json, key: Key | None
) -> Response:
    """The engine's own reply to the client's own bytes; `wire` is what they say."""
    head: dict[str, Any] = {}
    takes = {parts.config.host_of[model]: answers(wire)}

    async def relay() -> AsyncGenerator[bytes, None]:
        room = parts.admission.room(model, takes, direct=True, key=key.id if key else None)
        async with (
            records.current().waiting(model, room),
            parts.recorder.call(key, model, wire) as meter,
            parts.engines[model].forward(path, body) as reply,
        ):
            head.update(status_code=reply.status_code, media_type=reply.content_type)
            meter.status_code = reply.status_code
            with parts.in_flight.passed(reply.abort, staying=True):
                async for data in reply.body:
                    meter.hear(data)
                    yield data

    data = relay()
    async with parts.in_flight.inside():
        first = await unless_gone(request, anext(data, b""))
    if head["media_type"] == "text/event-stream":
        data = _to_its_end(parts, path, data)
    return Stream(_resume(first, data), parts.config.server.client_timeout_s, **head)


async def _to_its_end(parts: GatewayState, path: str, data: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """A stream that says so if it breaks off: it has begun with a status that was good."""
    try:
        async with aclosing(data) as pieces:
            async for piece in pieces:
                yield piece
    except CappellaError as error:
        yield proxy.broken_off(path, parts.describe(parts.in_flight.reason or error))


async def _resume(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for data in rest:
            yield data
    finally:
        await rest.aclose()


def _known(parts: GatewayState, key: Key | None) -> list[str]:
    """What the one who asks may call: of the rest it is not told that it exists."""
    names = [*(PREFIX + name for name in parts.config.ensembles), *parts.config.models_by_name]
    return [name for name in names if key is None or key.may_call(name)]
