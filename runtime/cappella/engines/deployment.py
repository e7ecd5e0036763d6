"""The engines of one config, and the changes to them that another config needs."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from cappella.config import Config, Model
from cappella.engines.base import EngineServer
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.remote import Attachment
from cappella.engines.replicas.replica import Replica
from cappella.engines.replicas.replicas import Replicas
from cappella.engines.status import EngineStatus
from cappella.errors import ConfigError, DoesNotFit
from cappella.placement import advice, folder
from cappella.placement.machine import Machine
from cappella.placement.planner import Placed, Plan

Fingerprints = Mapping[str, folder.Fingerprint]
"""Of each model's files."""


@dataclass(frozen=True, slots=True)
class Deployment:
    """`engines` by every name that can be called, adapters included; `lifecycles` and `attachments` by server: see `Config.servers_of`.

    `config` is `written` with the contexts that the plan chose; `machine` is the machine's memory before the first engine started.
    """

    config: Config
    written: Config
    machine: Machine
    plan: Plan
    fingerprints: Fingerprints
    engines: dict[str, EngineServer]
    lifecycles: dict[str, Lifecycle]
    attachments: dict[str, Attachment]

    @property
    def statuses(self) -> Mapping[str, EngineStatus]:
        """By model, each as it is when it is looked up; an adapter has its model's status."""
        return _Statuses({name: self.engines[name] for name in self.config.models if name in self.engines})

    def replicas_of(self, name: str) -> Sequence[Replica]:
        """The replicas of an engine; none if it is on one server."""
        engine = self.engines.get(name)
        return engine.replicas if isinstance(engine, Replicas) else ()

    @property
    def max_calls(self) -> Mapping[str, Callable[[], int]]:
        """What each model runs at once, as it is when it is asked: of one with replicas, what those run that accept calls."""
        models = {name: model for name, model in self.config.models.items() if name in self.engines}
        return {name: partial(_max_calls, self.engines[name], model.max_calls) for name, model in models.items()}

    def status_of(self, name: str) -> EngineStatus:
        """The status of a model, or of one of its replicas."""
        return self.replica_statuses[name] if name in self.replica_statuses else self.engines[name].status

    @property
    def replica_statuses(self) -> Mapping[str, EngineStatus]:
        """The status of each replica of each model that has some."""
        return {each.name: each.engine.status for name in self.config.models for each in self.replicas_of(name)}

    def answering(self) -> Mapping[str, bool]:
        """Whether each ensemble can answer now: enough members for its quorum, and its judge, accept requests."""
        return self.config.answering(name for name, status in self.statuses.items() if status.accepts_requests)


def _max_calls(engine: EngineServer, configured: int) -> int:
    return engine.max_calls if isinstance(engine, Replicas) else configured


class _Statuses(Mapping[str, EngineStatus]):
    """That of a model with replicas changes with each of them."""

    def __init__(self, engines: Mapping[str, EngineServer]) -> None:
        self._engines = engines

    def __getitem__(self, name: str) -> EngineStatus:
        return self._engines[name].status

    def __iter__(self) -> Iterator[str]:
        return iter(self._engines)

    def __len__(self) -> int:
        return len(self._engines)


@dataclass(frozen=True, slots=True)
class Change:
    """The change to another config, as it is written. A model whose settings or files have changed is both `removed` and `added`.

    With `fits_side_by_side` there is memory for the added engines beside the removed ones.
    """

    config: Config
    plan: Plan
    fingerprints: Fingerprints
    kept: frozenset[str]
    added: tuple[str, ...]
    removed: tuple[str, ...]
    fits_side_by_side: bool


def fingerprints(config: Config) -> Fingerprints:
    """The fingerprints of every model's files now."""
    files = {name: folder.fingerprint([m.weights, *m.adapters.values()]) for name, m in config.local.items()}
    return files | {
        name: folder.fingerprint_of([m.key_file] if m.key_file else []) for name, m in config.remote.items()
    }


def plan_change(old: Deployment, config: Config, now: Machine) -> Change:
    """The change from a running deployment; `now` is the machine with its engines in it.

    Failed engines are started anew; on a cluster, where models stay as they are, they are tried again.

    Raises ConfigError, and DoesNotFit if the new engines would not even fit without the removed ones.
    """
    new_fingerprints, on_cluster = fingerprints(config), config.placement.ray is not None
    kept = frozenset(
        name
        for name, model in config.models.items()
        if old.written.models.get(name) == model
        and old.fingerprints[name] == new_fingerprints[name]
        and (on_cluster or old.statuses[name].state != "failed")
    )
    added = tuple(name for name in config.models if name not in kept)
    removed = tuple(name for name in old.config.models if name not in kept)
    uses_memory = any(name not in config.remote for name in added) or any(name in old.config.local for name in removed)
    if uses_memory and on_cluster:
        raise ConfigError("placement.ray", "models on a cluster cannot be changed by a reload", "Restart the server")
    if uses_memory and (old.plan.turns or config.placement.swap):
        raise ConfigError("placement.swap", "swapped models cannot be changed by a reload", "Restart the server")
    # The plan places replicas, and cannot be told where they are: those that stay count as their planned bytes, since one that
    # sleeps, loads or failed will need them again.
    fixed = frozenset(name for name in kept if len(old.config.servers_of([name])) > 1)
    pinned = _pinned(config, old.plan, kept, fixed)
    room = _without(now, old, [*kept, *removed])
    if config.placement.memory_bytes is not None:
        room = room.limited(config.placement.memory_bytes)
    room = _with(room, old, fixed)
    try:
        plan, side_by_side = advice.plan(pinned, _with(room, old, removed)), True
    except DoesNotFit:
        plan, side_by_side = advice.plan(pinned, room), False
    stay = old.config.servers_of(kept)
    servers = config.servers_of(config.local)
    placed = {name: (old.plan if name in stay else plan).placed[name] for name in servers}
    footprints = {name: each for name, each in {**plan.footprints, **old.plan.footprints}.items() if name in placed}
    footprints |= {name: each for name, each in plan.footprints.items() if name not in stay}
    return Change(
        config, Plan(old.plan.machine, placed, footprints), new_fingerprints, kept, added, removed, side_by_side
    )


def _pinned(config: Config, plan: Plan, kept: frozenset[str], fixed: frozenset[str]) -> Config:
    """The config with the kept engines fixed to their GPUs, contexts and KV cache sizes, and without the `fixed` models."""

    def pin(model: Model, placed: Placed) -> Model:
        where = {"gpus": placed.gpus, "tensor_parallel_size": None} if plan.machine.gpu else {}
        sizes = {"kv_cache_bytes": placed.kv_cache_bytes, "max_model_len": placed.max_model_len}
        return model.model_copy(update={**sizes, **where})

    placed = (name for name in config.models if name not in fixed)
    models = {
        name: pin(model, plan.placed[name]) if isinstance(model, Model) and name in kept else model
        for name, model in ((name, config.models[name]) for name in placed)
    }
    return config.model_copy(update={"models": models})


def _without(now: Machine, old: Deployment, names: list[str]) -> Machine:
    """The machine as if these engines had ended, with no more free memory than before the first of them started."""
    free_before = {device.index: device.free_bytes for device in old.machine.devices}
    bytes_by_gpu = _held_bytes(old, names)
    devices = [
        replace(each, free_bytes=min(free_before[each.index], each.free_bytes + bytes_by_gpu.get(each.index, 0)))
        for each in now.devices
        if each.index in free_before
    ]
    return replace(now, devices=devices)


def _with(room: Machine, old: Deployment, names: Iterable[str]) -> Machine:
    """The machine with these engines running in it."""
    bytes_by_gpu = _held_bytes(old, list(names))
    devices = [
        replace(each, free_bytes=max(0, each.free_bytes - bytes_by_gpu.get(each.index, 0))) for each in room.devices
    ]
    return replace(room, devices=devices)


def _held_bytes(old: Deployment, names: list[str]) -> dict[int, int]:
    """Bytes by GPU."""
    held: dict[int, int] = {}
    placed_of = old.plan.placed
    for placed in (placed_of[name] for name in old.config.servers_of(dict.fromkeys(names)) if name in placed_of):
        for gpu in placed.gpus:
            held[gpu] = held.get(gpu, 0) + placed.total_bytes
    return held
