"""`GET /health`, `GET /ready` and `GET /metrics`, for load balancers, operators and Prometheus."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cappella.auth.keys import Key
from cappella.engines.base import EngineServer
from cappella.engines.status import EngineStatus, Failure
from cappella.gateway.machine_types import EngineNow, EngineReadiness, EngineStatusNow, GpuNow, LastFailure, Readiness
from cappella.gateway.model_list import PREFIX
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.reply_types import Health
from cappella.gateway.state import GatewayState
from cappella.placement.gpus import Gpu
from cappella.telemetry.snapshot import Snapshot


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    router = PlainRoutes()

    @router.get("/health")
    async def health(_: Request) -> Health:
        return {"status": "ok"}

    @router.get("/ready")
    async def ready(request: Request) -> Response:
        state = current()
        readiness = _readiness(state, await state.authenticate(request, "run", "admin"))
        return JSONResponse(readiness, 200 if readiness["ready"] else 503)

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        state = current()
        await state.authenticate(request, "admin")
        return Response(await state.metrics.render(_snapshot(state)), media_type="text/plain; version=0.0.4")

    return router


def is_operator(key: Key | None) -> bool:
    """Whether the key may see why an engine does not run; without keys everybody may."""
    return key is None or "admin" in key.scopes


def engines_now(engines: Mapping[str, EngineServer], key: Key) -> dict[str, EngineNow]:
    """The engines that the key may call, without any words about them: a log may hold what others have asked."""
    return {
        name: {**engine_now(engine.status), "stage": engine.status.state}
        for name, engine in engines.items()
        if key.may_call(name)
    }


def engine_now(status: EngineStatus) -> EngineNow:
    """The state of one engine, and how far its start is."""
    return {
        "state": status.state,
        "stage": status.stage,
        "progress": status.progress,
        "remaining_s": status.remaining_s,
    }


def engine_status(status: EngineStatus) -> EngineStatusNow:
    """The whole status of one engine, as replies have it."""
    return {
        **engine_now(status),
        "restarts": status.restarts,
        "restarts_asked": status.restarts_asked,
        "wakes": status.wakes,
        "last_wake_s": status.last_wake_s,
        "reason": status.reason,
        "last_failure": told_failure(status.last_failure) if status.last_failure else None,
    }


def told_failure(failure: Failure) -> LastFailure:
    """A failure, as replies have it."""
    return {"time": failure.time, "reason": failure.reason, "log": failure.log}


def _snapshot(state: GatewayState) -> Snapshot:
    deadlines_s = {name: ensemble.deadline_s for name, ensemble in state.config.ensembles.items()}
    waiting, refused = state.admission.waiting, state.admission.refused
    answering = state.deployment.answering()
    replicas = {name: state.deployment.replicas_of(name) for name in state.config.models}
    return Snapshot(state.engines, state.gpus(), waiting, refused, answering, deadlines_s, state.tool_servers, replicas)


def _readiness(state: GatewayState, key: Key | None) -> Readiness:
    ensembles = state.deployment.answering()
    readiness: Readiness = {"ready": all(ensembles.values()), "ensembles": {}, "engines": {}, "gpus": []}
    if key is None or is_operator(key):
        readiness["ensembles"] = dict(ensembles)
        readiness["engines"] = {name: _engine(engine.status) for name, engine in state.engines.items()}
        readiness["gpus"] = [_gpu(gpu) for gpu in state.gpus()]
        return readiness
    readiness["ensembles"] = {name: up for name, up in ensembles.items() if key.may_call(PREFIX + name)}
    readiness["engines"] = engines_now(state.engines, key)
    return readiness


def _engine(status: EngineStatus) -> EngineReadiness:
    return {"model": status.model, **engine_status(status)}


def _gpu(gpu: Gpu) -> GpuNow:
    return {
        "index": gpu.index,
        "uuid": gpu.uuid,
        "name": gpu.name,
        "total_bytes": gpu.total_bytes,
        "free_bytes": gpu.free_bytes,
        "busy_percent": gpu.busy_percent,
        "numa_node": gpu.numa_node,
        "linked": sorted(gpu.linked),
    }
