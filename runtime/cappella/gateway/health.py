"""Whether it lives, what can answer, and every figure: for load balancers, operators and Prometheus."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response

from cappella.gateway.state import GatewayState
from cappella.telemetry.snapshot import Snapshot


def create_router(current: Callable[[], GatewayState]) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    async def ready(request: Request, response: Response) -> dict[str, Any]:
        parts = current()
        await parts.authenticate(request, "run")
        state = _readiness(parts)
        response.status_code = 200 if state["ready"] else 503
        return state

    @router.get("/metrics")
    async def metrics(request: Request) -> Response:
        parts = current()
        await parts.authenticate(request, "admin")
        return Response(await parts.metrics.render(_now(parts)), media_type="text/plain; version=0.0.4")

    return router


def _now(parts: GatewayState) -> Snapshot:
    deadlines_s = {name: ensemble.deadline_s for name, ensemble in parts.config.ensembles.items()}
    waiting, refused = parts.admission.waiting, parts.admission.refused
    return Snapshot(parts.engines, parts.gpus(), waiting, refused, parts.deployment.answering(), deadlines_s)


def _readiness(parts: GatewayState) -> dict[str, Any]:
    """Ready means that every ensemble is."""
    ensembles = parts.deployment.answering()
    return {
        "ready": all(ensembles.values()),
        "ensembles": ensembles,
        "engines": {name: asdict(engine.status) for name, engine in parts.engines.items()},
        "gpus": [{**asdict(gpu), "linked": sorted(gpu.linked)} for gpu in parts.gpus()],
    }
