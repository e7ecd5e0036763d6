"""`GET /api/engines/{name}`, `/api/figures` and `/api/calls`: what an operator looks up about one engine, the last hour and its calls."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from starlette.requests import Request

from cappella.config import Config, weights
from cappella.engines import crash_reason
from cappella.errors import UnknownEngine
from cappella.gateway.health import told_failure
from cappella.gateway.machine_types import Calls, EngineFacts, EngineLog, EngineRecord
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.runs import limit_of
from cappella.gateway.state import GatewayState
from cappella.placement.planner import Plan
from cappella.telemetry.figures_history import FiguresHistory, FiguresOverTime
from cappella.telemetry.recent_calls import MAX_CALLS, RecentCalls

MAX_LOG_LINES = 200


class EngineLogs(Protocol):
    """The owner of the engine processes, as their logs and their placement are read."""

    @property
    def plan(self) -> Plan: ...

    def log_of(self, name: str) -> Path | None:
        """The log of an engine's last launch; None for a server that runs elsewhere."""
        ...


def create_router(
    current: Callable[[], GatewayState],
    engines: EngineLogs,
    history: FiguresHistory,
    calls: RecentCalls,
    digest_of: Callable[[str], str | None],
) -> PlainRoutes:
    """The endpoints, all for operators."""
    router = PlainRoutes("/api")

    @router.get("/engines/{name}")
    async def engine(request: Request) -> EngineRecord:
        state, name = current(), request.path_params["name"]
        await state.authenticate(request, "admin")
        config, owner = state.config, state.config.model_of.get(name, name)
        if owner not in config.models:
            raise UnknownEngine(name, [*config.models, *state.deployment.replica_statuses])
        log = engines.log_of(name)
        return {
            "engine": name,
            "facts": _facts(config, engines.plan, owner, digest_of),
            "failures": [told_failure(each) for each in reversed(state.deployment.status_of(name).failures)],
            "log": await asyncio.to_thread(_log, log) if log else None,
        }

    @router.get("/figures")
    async def figures(request: Request) -> FiguresOverTime:
        await current().authenticate(request, "admin")
        return history.over_time()

    @router.get("/calls")
    async def recent(request: Request) -> Calls:
        await current().authenticate(request, "admin")
        return {"object": "list", "data": list(calls.newest_first(limit_of(request, MAX_CALLS)))}

    return router


def _facts(config: Config, plan: Plan, name: str, digest_of: Callable[[str], str | None]) -> EngineFacts:
    if name in config.remote:
        remote = config.remote[name]
        return {
            "url": ", ".join(remote.urls),
            "max_model_len": remote.max_model_len,
            "max_num_seqs": remote.max_num_seqs,
        }
    model = config.local[name]
    hub, placed = weights.named_by(model.weights), plan.placed[config.servers_of([name])[0]]
    return {
        "weights": str(model.weights),
        "hub_id": hub.hub_id if hub else None,
        "revision": hub.revision if hub else None,
        "digest": digest_of(name),
        "dtype": placed.dtype,
        "kv_cache_dtype": model.kv_cache_dtype,
        "max_model_len": placed.max_model_len,
        "max_num_seqs": model.max_num_seqs,
    }


def _log(path: Path) -> EngineLog:
    """The end of a log; without lines if it cannot be read."""
    try:
        lines = crash_reason.read_tail(path)
    except OSError:
        lines = []
    return {"file": str(path), "lines": lines[-MAX_LOG_LINES:]}
