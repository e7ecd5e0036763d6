"""`GET /api/machine` (engines, ensembles, memory, queue) and `POST /api/engines/{name}/{action}`."""

import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cappella.auth.keys import Key
from cappella.config import Config, RemoteModel
from cappella.engines.base import EngineServer
from cappella.engines.status import Action
from cappella.gateway.health import engine_now, engine_status, engines_now, is_operator
from cappella.gateway.machine_types import (
    Engine,
    EngineDetails,
    EngineFigures,
    EnginePlace,
    EnsembleNow,
    Machine,
    MemoryNow,
    Queue,
    ReplicaNow,
    ToolServerNow,
)
from cappella.gateway.model_list import PREFIX
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.request import credentials
from cappella.gateway.state import GatewayState
from cappella.placement.planner import Plan
from cappella.telemetry.audit.actions import MAX_NAME_CHARACTERS, OperatorActions
from cappella.telemetry.engine_metrics import Figures, Gauges, Reading
from cappella.version import __version__


class EngineOperations(Protocol):
    """The owner of the engine processes, as operators use it."""

    @property
    def plan(self) -> Plan: ...

    def actions(self, name: str) -> Sequence[Action]:
        """The actions that are possible on an engine now."""
        ...

    async def act(self, name: str, action: str) -> None:
        """Raises UnknownEngine and ActionRefused."""
        ...

    def process_groups(self) -> Mapping[str, int]:
        """The process group of each engine that has processes now."""
        ...


def create_router(
    current: Callable[[], GatewayState],
    operations: EngineOperations,
    actions: OperatorActions,
    read: Callable[[], Awaitable[Reading]],
) -> PlainRoutes:
    """The endpoints; `read` gives the figures now, as `reading_of` does."""
    router = PlainRoutes("/api")

    @router.get("/machine")
    async def machine(request: Request) -> Machine:
        state = current()
        key = await state.gatekeeper.authenticate(*credentials(request), "run", "admin")
        reply: Machine = {
            "time": time.time(),
            "version": __version__,
            "ensembles": _ensembles(state, key),
            "runs_kept": state.config.server.runs is not None,
            "takes_batches": state.batches is not None,
            "engines": {},
        }
        if key is not None and not is_operator(key):
            reply["engines"] = engines_now(_servers(state), key)
            return reply
        reading = await read()
        reply["engines"] = _engines(state, reading, operations)
        reply["memory"] = _memory(operations.plan, state.config, reading)
        reply["queue"] = _queue(state)
        reply["tool_servers"] = _tool_servers(state)
        return reply

    @router.post("/engines/{name}/{action}")
    async def act(request: Request) -> Response:
        state, name, action = current(), request.path_params["name"], request.path_params["action"]
        await state.authenticate(request, "admin")
        with actions.recorded(action, engine=name[:MAX_NAME_CHARACTERS]) as line:
            await operations.act(name, action)
            status = current().deployment.status_of(name)
            line["state"] = status.state
        reply: Engine = {"engine": name, "state": status.state, "stage": status.stage, "actions": []}
        reply["actions"] += operations.actions(name)
        return JSONResponse(reply, 202)

    return router


def reading_of(current: Callable[[], GatewayState], operations: EngineOperations) -> Callable[[], Awaitable[Reading]]:
    """Reads the figures now, for all who want them at about the same time."""
    gauges = Gauges(lambda: current().gpus())
    return lambda: gauges.read(_servers(current()), operations.process_groups, operations.plan.machine.gpu)


def load_of(state: GatewayState) -> tuple[int, int]:
    """How many requests wait, and how many are served."""
    return sum(state.admission.waiting.values()), sum(state.admission.in_flight.values())


def _servers(state: GatewayState) -> dict[str, EngineServer]:
    """Without adapters, which have their engine's figures."""
    return {name: state.engines[name] for name in state.config.models}


def _ensembles(state: GatewayState, key: Key | None) -> dict[str, EnsembleNow]:
    """Those that the key may call, as in /v1/models; an admin key sees all."""
    answering = state.deployment.answering()
    waiting, in_flight = state.admission.waiting, state.admission.in_flight
    return {
        name: {
            "answers": answering[name],
            "panel": [seat.name for seat in ensemble.seats],
            "judge": judge.model if (judge := ensemble.judge_of(ensemble)) else None,
            "presets": list(ensemble.presets),
            "waiting": waiting.get(PREFIX + name, 0),
            "in_flight": in_flight.get(PREFIX + name, 0),
        }
        for name, ensemble in state.config.ensembles.items()
        if key is None or is_operator(key) or key.may_call(PREFIX + name)
    }


def _engines(state: GatewayState, reading: Reading, operations: EngineOperations) -> dict[str, EngineDetails]:
    config = state.config
    return {
        name: {
            **engine_status(engine.status),
            "task": config.models[name].task,
            "adapters": list(config.models[name].adapters),
            **_place(operations.plan, config.servers_of([name])),
            "url": ", ".join(config.remote[name].urls) if name in config.remote else None,
            "used_bytes": _used_bytes(reading, config.servers_of([name])),
            **_figures(reading.figures.get(name, Figures())),
            "actions": list(operations.actions(name)),
            "replicas": _replicas(state, name, operations),
        }
        for name, engine in _servers(state).items()
    }


def _replicas(state: GatewayState, name: str, operations: EngineOperations) -> list[ReplicaNow]:
    model = state.config.models[name]
    urls = dict(zip(model.servers(name), model.urls, strict=True)) if isinstance(model, RemoteModel) else {}
    return [
        {
            "name": each.name,
            **engine_now(each.engine.status),
            "reason": each.engine.status.reason,
            "url": urls.get(each.name),
            "in_flight": each.calls.count,
            "max_num_seqs": each.max_num_seqs,
            "failed": each.calls.failed,
            "actions": list(operations.actions(each.name)),
        }
        for each in state.deployment.replicas_of(name)
    ]


def _used_bytes(reading: Reading, servers: Sequence[str]) -> int | None:
    known = [reading.used_bytes[server] for server in servers if server in reading.used_bytes]
    return sum(known) if known else None


def _place(plan: Plan, servers: Sequence[str]) -> EnginePlace:
    """The places of all replicas together."""
    all_placed = [plan.placed[server] for server in servers if server in plan.placed]
    if not all_placed:
        return {"gpus": [], "turn": None, "planned": None}
    return {
        "gpus": sorted({gpu for placed in all_placed for gpu in placed.gpus}) if plan.machine.gpu else [],
        "turn": all_placed[0].turn,
        "planned": {
            "weight_bytes": sum(placed.weight_bytes for placed in all_placed),
            "kv_cache_bytes": sum(placed.kv_cache_bytes for placed in all_placed),
            "overhead_bytes": sum(placed.overhead_bytes for placed in all_placed),
        },
    }


def _figures(figures: Figures) -> EngineFigures:
    return {
        "kv_usage": figures.kv_usage,
        "running": figures.running,
        "waiting": figures.waiting,
        "tokens_per_s": figures.tokens_per_s,
    }


def _memory(plan: Plan, config: Config, reading: Reading) -> list[MemoryNow]:
    return [
        {
            "device": each.device,
            "total_bytes": each.total_bytes,
            "free_bytes": each.free_bytes,
            "busy_percent": each.busy_percent,
            "engines": _planned_on(plan, config, each.index),
        }
        for each in reading.memory
    ]


def _planned_on(plan: Plan, config: Config, device: int) -> dict[str, int]:
    """The planned bytes of each model on a device, of all its replicas there."""
    model_of, planned = config.model_of, Counter[str]()
    for server, placed in plan.placed.items():
        if device in placed.gpus:
            planned[model_of.get(server, server)] += placed.total_bytes
    return dict(planned)


def _tool_servers(state: GatewayState) -> dict[str, ToolServerNow]:
    return {
        name: {
            "state": "starting" if server.is_starting else "down" if server.problem else "ready",
            "problem": server.problem,
            "tools": [tool.name for tool in server.tools],
            "calls": server.calls,
            "failed": server.failed,
            "confined_by": server.details.confined_by,
            "notes": list(server.details.notes),
        }
        for name, server in state.tool_servers.items()
    }


def _queue(state: GatewayState) -> Queue:
    """Counts by ensemble, and by model where one is called by its own name."""
    return {
        "waiting": {name: count for name, count in state.admission.waiting.items() if count},
        "in_flight": dict(state.admission.in_flight),
        "max_waiting": state.config.server.max_waiting,
    }
