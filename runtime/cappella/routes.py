"""The endpoints: schema in, pipeline or engine, response out."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import StreamingResponse

from cappella import responses, schema
from cappella.config import Config
from cappella.engines.vllm import VllmEngine
from cappella.ensemble.pipeline import Pipeline
from cappella.ensemble.settings import resolve
from cappella.errors import CappellaError, RequestError, UnknownModel
from cappella.metrics import Metrics
from cappella.streaming import Describe, stream
from cappella.types import Emit, Run, Settings

PREFIX = "cappella/"
CLIENT_GONE = 499

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the endpoints work with; `app.create_app` makes it."""

    config: Config
    engines: dict[str, VllmEngine]
    pipeline: Pipeline
    metrics: Metrics
    describe: Describe
    created: int


class ClientGone(Exception):
    """The client closed the connection; nobody reads the reply."""


def create_router(parts: Parts) -> APIRouter:
    router = APIRouter()

    @router.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        body = await _read(request, parts.config.server.max_body_bytes)
        fields = _json_object(body)
        model = fields.get("model")
        if not isinstance(model, str):
            raise RequestError("model must be a string.", "model")
        if model in parts.engines:
            schema.require_forwardable(fields)
            return await _forward(parts.engines[model], request, body)
        return await _ensemble(parts, request, fields, model)

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": _models(parts)}

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    async def ready(response: Response) -> dict[str, Any]:
        state = _readiness(parts)
        response.status_code = 200 if state["ready"] else 503
        return state

    @router.get("/metrics")
    async def metrics() -> Response:
        return Response(await parts.metrics.render(parts.engines), media_type="text/plain; version=0.0.4")

    return router


async def _ensemble(parts: Parts, request: Request, fields: dict[str, Any], model: str) -> Response:
    name = model.removeprefix(PREFIX)
    if not model.startswith(PREFIX) or name not in parts.config.ensembles:
        raise UnknownModel(model, _known(parts))
    wanted = schema.parse(fields)
    settings = resolve(
        name, parts.config.ensembles[name], parts.config.models, wanted.options.overrides, wanted.sampling
    )

    async def run(emit: Emit) -> Run:
        return await _counted(parts, wanted, settings, emit)

    if not wanted.stream:
        result = await _unless_gone(request, run(lambda event: None))
        return _json(responses.completion(result, wanted.options))
    frames = stream(run, wanted, parts.describe)
    # The first frame is awaited here, so that an early failure still gets its own status code.
    first = await _unless_gone(request, anext(frames))
    return StreamingResponse(_resume(first, frames), media_type="text/event-stream", headers=_NO_BUFFERING)


async def _counted(parts: Parts, wanted: schema.ChatRequest, settings: Settings, emit: Emit) -> Run:
    """The run, with its figures kept, however it ends."""
    parts.metrics.begin(settings.ensemble)
    run, status = None, "cancelled"
    try:
        run = await parts.pipeline.run(wanted.conversation, settings, emit)
        status = run.status
        return run
    except CappellaError as error:
        status = type(error).__name__
        raise
    finally:
        parts.metrics.end(settings.ensemble, run, status)


_NO_BUFFERING = {"Cache-Control": "no-cache", "X-Accel-Buffering": "no"}


async def _forward(engine: VllmEngine, request: Request, body: bytes) -> Response:
    """The engine's own reply to the client's own bytes."""
    head: dict[str, Any] = {}

    async def relay() -> AsyncGenerator[bytes, None]:
        async with engine.forward("/v1/chat/completions", body) as reply:
            head.update(status_code=reply.status_code, media_type=reply.content_type)
            async for data in reply.body:
                yield data

    data = relay()
    first = await _unless_gone(request, anext(data, b""))
    return StreamingResponse(_resume(first, data), **head)


async def _resume(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for data in rest:
            yield data
    finally:
        await rest.aclose()


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The work's result. If the client goes away first, the work is cancelled, and ClientGone raised."""
    task = asyncio.ensure_future(work)
    gone = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.wait({task, gone})


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _read(request: Request, limit: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > limit:
            raise RequestError(f"The body is larger than {limit} bytes.", code="body_too_large")
        parts.append(part)
    return b"".join(parts)


def _json_object(body: bytes) -> dict[str, Any]:
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    return value


def _json(value: dict[str, Any]) -> Response:
    return Response(orjson.dumps(value), media_type="application/json")


def _known(parts: Parts) -> list[str]:
    return [*(PREFIX + name for name in parts.config.ensembles), *parts.config.models]


def _models(parts: Parts) -> list[dict[str, Any]]:
    entry = {"object": "model", "created": parts.created, "owned_by": "cappella"}
    ensembles = [
        {"id": PREFIX + name, **entry, "panel": [seat.name for seat in e.seats], "judge": e.judge.model}
        for name, e in parts.config.ensembles.items()
    ]
    members = [
        {"id": name, **entry, "max_model_len": model.max_model_len} for name, model in parts.config.models.items()
    ]
    return [*ensembles, *members]


def _readiness(parts: Parts) -> dict[str, Any]:
    """Ready means that every ensemble has its quorum and its judge."""
    up = {name for name, engine in parts.engines.items() if engine.status.state == "ready"}
    ensembles = {
        name: e.judge.model in up and sum(seat.model in up for seat in e.seats) >= e.quorum_of(len(e.seats))
        for name, e in parts.config.ensembles.items()
    }
    return {
        "ready": all(ensembles.values()),
        "ensembles": ensembles,
        "engines": {name: asdict(engine.status) for name, engine in parts.engines.items()},
    }
