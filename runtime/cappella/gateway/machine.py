"""/api/machine, the machine at one look, and what operators may ask of its engines."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Protocol

from fastapi import APIRouter, Request

from cappella.auth.keys import Key
from cappella.config import Config
from cappella.engines.base import EngineServer
from cappella.engines.status import Action, EngineStatus
from cappella.gateway.model_list import PREFIX
from cappella.gateway.request import credentials
from cappella.gateway.state import GatewayState
from cappella.placement.planner import Plan
from cappella.telemetry.engine_metrics import Figures, Gauges, Reading
from cappella.types import Json
from cappella.version import __version__


class Operated(Protocol):
    """Who owns the engine processes."""

    @property
    def plan(self) -> Plan: ...

    def actions(self, name: str) -> Sequence[Action]:
        """What may be asked of an engine now."""
        ...

    async def act(self, name: str, action: str) -> None:
        """Raises UnknownEngine, and ActionRefused."""
        ...

    def process_groups(self) -> Mapping[str, int]:
        """Of the engines that have processes."""
        ...


def create_router(current: Callable[[], GatewayState], operated: Operated) -> APIRouter:
    router = APIRouter(prefix="/api")
    gauges = Gauges(lambda: current().gpus())

    @router.get("/machine")
    async def machine(request: Request) -> Json:
        parts = current()
        key = await parts.gatekeeper.authenticate(*credentials(request), "run", "admin")
        told = {
            "time": time.time(),
            "version": __version__,
            "ensembles": _ensembles(parts, key),
            "runs_kept": parts.config.server.runs is not None,
        }
        servers = {name: parts.engines[name] for name in parts.config.models}
        if key is not None and "admin" not in key.scopes:
            return told | {"engines": {name: _state(engine.status) for name, engine in servers.items()}}
        reading = await gauges.read(servers, operated.process_groups, operated.plan.machine.gpu)
        return told | {
            "engines": _engines(parts.config, servers, reading, operated),
            "memory": _memory(operated.plan, reading),
            "queue": _queue(parts),
        }

    @router.post("/engines/{name}/{action}", status_code=202)
    async def act(name: str, action: str, request: Request) -> Json:
        parts = current()
        await parts.gatekeeper.authenticate(*credentials(request), "admin")
        await operated.act(name, action)
        status = parts.engines[name].status
        return {"engine": name, "state": status.state, "stage": status.stage, "actions": [*operated.actions(name)]}

    return router


def _ensembles(parts: GatewayState, key: Key | None) -> Json:
    """Those that the key may call, as in /v1/models; an operator's sees all."""
    answering = parts.deployment.answering()
    waiting, inside = parts.admission.waiting, parts.admission.inside
    return {
        name: {
            "answers": answering[name],
            "panel": [seat.name for seat in ensemble.seats],
            "judge": ensemble.judge.model,
            "presets": list(ensemble.presets),
            "waiting": waiting.get(PREFIX + name, 0),
            "in_flight": inside.get(PREFIX + name, 0),
        }
        for name, ensemble in parts.config.ensembles.items()
        if key is None or "admin" in key.scopes or key.may_call(PREFIX + name)
    }


def _state(status: EngineStatus) -> Json:
    return {
        "state": status.state,
        "stage": status.stage,
        "progress": status.progress,
        "remaining_s": status.remaining_s,
    }


def _engines(config: Config, engines: Mapping[str, EngineServer], reading: Reading, operated: Operated) -> Json:
    return {
        name: {
            **_state(engine.status),
            "reason": engine.status.reason,
            "last_failure": asdict(engine.status.last_failure) if engine.status.last_failure else None,
            "restarts": engine.status.restarts,
            "restarts_asked": engine.status.restarts_asked,
            "adapters": list(config.models[name].adapters),
            **_planned(operated.plan, name),
            "url": config.remote[name].url if name in config.remote else None,
            "used_bytes": reading.used_bytes.get(name),
            **asdict(reading.figures.get(name, Figures())),
            "actions": list(operated.actions(name)),
        }
        for name, engine in engines.items()
    }


def _planned(plan: Plan, name: str) -> Json:
    """`turn` is None for an engine that never sleeps; bytes are those on each of its GPUs. A remote model has no place."""
    placed = plan.placed.get(name)
    if placed is None:
        return {"gpus": [], "turn": None, "planned": None}
    sizes = ("weight_bytes", "kv_cache_bytes", "overhead_bytes")
    return {
        "gpus": list(placed.gpus) if plan.machine.gpu else [],
        "turn": placed.turn,
        "planned": {size: getattr(placed, size) for size in sizes},
    }


def _memory(plan: Plan, reading: Reading) -> list[Json]:
    return [
        {
            **{name: value for name, value in asdict(each).items() if name != "index"},
            "engines": {name: p.total_bytes for name, p in plan.placed.items() if each.index in p.gpus},
        }
        for each in reading.memory
    ]


def _queue(parts: GatewayState) -> Json:
    """By ensemble, and by model where one is called by its own name."""
    return {
        "waiting": {name: count for name, count in parts.admission.waiting.items() if count},
        "in_flight": dict(parts.admission.inside),
        "max_waiting": parts.config.server.max_waiting,
    }
