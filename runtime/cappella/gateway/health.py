"""`GET /health`, `GET /ready` and `GET /metrics`, for load balancers, operators and Prometheus."""

from collections.abc import Callable

from fastapi import APIRouter, Request, Response

from cappella.engines.status import EngineStatus
from cappella.gateway.machine_types import EngineNow, EngineReadiness, EngineStatusNow, GpuNow, Readiness
from cappella.gateway.reply_types import Health
from cappella.gateway.state import GatewayState
from cappella.placement.gpus import Gpu
from cappella.telemetry.snapshot import Snapshot


def create_router(current: Callable[[], GatewayState]) -> APIRouter:
    router = APIRouter()

    @router.get("/health", response_model=None)
    async def health() -> Health:
        return {"status": "ok"}

    @router.get("/ready", response_model=None)
    async def ready(request: Request, response: Response) -> Readiness:
        state = current()
        await state.authenticate(request, "run")
        readiness = _readiness(state)
        response.status_code = 200 if readiness["ready"] else 503
        return readiness

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        state = current()
        await state.authenticate(request, "admin")
        return Response(await state.metrics.render(_snapshot(state)), media_type="text/plain; version=0.0.4")

    return router


def engine_progress(status: EngineStatus) -> EngineNow:
    """The status of one engine, as every key may see it."""
    return {
        "state": status.state,
        "stage": status.stage,
        "progress": status.progress,
        "remaining_s": status.remaining_s,
    }


def engine_status(status: EngineStatus) -> EngineStatusNow:
    """The whole status of one engine, as replies have it."""
    failure = status.last_failure
    return {
        **engine_progress(status),
        "restarts": status.restarts,
        "restarts_asked": status.restarts_asked,
        "reason": status.reason,
        "last_failure": {"time": failure.time, "reason": failure.reason, "log": failure.log} if failure else None,
    }


def _snapshot(state: GatewayState) -> Snapshot:
    deadlines_s = {name: ensemble.deadline_s for name, ensemble in state.config.ensembles.items()}
    waiting, refused = state.admission.waiting, state.admission.refused
    return Snapshot(state.engines, state.gpus(), waiting, refused, state.deployment.answering(), deadlines_s)


def _readiness(state: GatewayState) -> Readiness:
    ensembles = state.deployment.answering()
    return {
        "ready": all(ensembles.values()),
        "ensembles": dict(ensembles),
        "engines": {name: _engine(engine.status) for name, engine in state.engines.items()},
        "gpus": [_gpu(gpu) for gpu in state.gpus()],
    }


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
