"""The engines of one config, and what another config would change among them."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from cappella.config import Config, Model
from cappella.engines.base import EngineServer
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.remote import Attachment
from cappella.engines.status import EngineStatus
from cappella.errors import ConfigError, DoesNotFit
from cappella.placement import advice, folder
from cappella.placement.machine import Machine
from cappella.placement.planner import Placed, Plan

Stamps = Mapping[str, folder.Fingerprint]


@dataclass(frozen=True, slots=True)
class Deployment:
    """`engines` by every name that they are called by, `lifecycles` and `attachments` by model; `stamps` are of their files.

    `machine` is what there was before the first of them began.
    """

    config: Config
    machine: Machine
    plan: Plan
    stamps: Stamps
    engines: dict[str, EngineServer]
    lifecycles: dict[str, Lifecycle]
    attachments: dict[str, Attachment]

    @property
    def statuses(self) -> Mapping[str, EngineStatus]:
        """By model; an adapter has that of its model's."""
        return {name: self.engines[name].status for name in self.config.models if name in self.engines}

    def answering(self) -> Mapping[str, bool]:
        """Of each ensemble, whether it can answer now: its quorum and its judge take calls."""
        return self.config.answering(name for name, status in self.statuses.items() if status.accepts_requests)


@dataclass(frozen=True, slots=True)
class Change:
    """From one config to another. `comes` and `goes` may name one model, if what is said of it has changed.

    With `together` there is room for those that come beside those that go.
    """

    config: Config
    plan: Plan
    stamps: Stamps
    stays: frozenset[str]
    comes: tuple[str, ...]
    goes: tuple[str, ...]
    together: bool


def stamps(config: Config) -> Stamps:
    """What the files of every model look like now."""
    files = {name: folder.fingerprint([m.weights, *m.adapters.values()]) for name, m in config.local.items()}
    return files | {
        name: folder.fingerprint_of([m.key_file] if m.key_file else []) for name, m in config.remote.items()
    }


def change(old: Deployment, config: Config, now: Machine) -> Change:
    """An engine that was given up comes anew. `now` is the machine beside the old ones. Raises ConfigError, and DoesNotFit where even alone they would not."""
    found = stamps(config)
    stays = frozenset(
        name
        for name, model in config.models.items()
        if old.config.models.get(name) == model
        and old.stamps[name] == found[name]
        and old.statuses[name].state != "failed"
    )
    comes = tuple(name for name in config.models if name not in stays)
    goes = tuple(name for name in old.config.models if name not in stays)
    moves = any(name not in config.remote for name in comes) or any(name in old.plan.placed for name in goes)
    if moves and (old.plan.turns or config.placement.swap):
        raise ConfigError("placement.swap", "models that take turns cannot change under way", "Restart the server")
    pinned = _pinned(config, old.plan, stays)
    room = _given_back(now, old, [*stays, *goes])
    if config.placement.memory_bytes is not None:
        room = room.limited(config.placement.memory_bytes)
    try:
        plan, together = advice.plan(pinned, _taken(room, old.plan, goes)), True
    except DoesNotFit:
        plan, together = advice.plan(pinned, room), False
    placed = {name: old.plan.placed[name] if name in stays else plan.placed[name] for name in config.local}
    return Change(config, Plan(old.plan.machine, placed), found, stays, comes, goes, together)


def _pinned(config: Config, plan: Plan, stays: frozenset[str]) -> Config:
    """The config with those who stay where and as large as they are."""

    def pin(model: Model, placed: Placed) -> Model:
        where = {"gpus": placed.gpus, "tensor_parallel_size": None} if plan.machine.gpu else {}
        return model.model_copy(update={"kv_cache_bytes": placed.kv_cache_bytes, **where})

    models = {name: pin(m, plan.placed[name]) if name in stays else m for name, m in config.local.items()}
    return config.model_copy(update={"models": {**config.models, **models}})


def _given_back(now: Machine, old: Deployment, names: list[str]) -> Machine:
    """The machine as if these engines had ended: what is free now and what they hold, but no more than there was."""
    free = {device.index: device.free_bytes for device in old.machine.devices}
    bytes_by_gpu = _held(old.plan, names)
    devices = [
        replace(each, free_bytes=min(free[each.index], each.free_bytes + bytes_by_gpu.get(each.index, 0)))
        for each in now.devices
        if each.index in free
    ]
    return Machine(devices, now.gpu)


def _taken(room: Machine, plan: Plan, names: tuple[str, ...]) -> Machine:
    """The machine with these engines still in it."""
    bytes_by_gpu = _held(plan, list(names))
    devices = [
        replace(each, free_bytes=max(0, each.free_bytes - bytes_by_gpu.get(each.index, 0))) for each in room.devices
    ]
    return Machine(devices, room.gpu)


def _held(plan: Plan, names: list[str]) -> dict[int, int]:
    held: dict[int, int] = {}
    for placed in (plan.placed[name] for name in dict.fromkeys(names) if name in plan.placed):
        for gpu in placed.gpus:
            held[gpu] = held.get(gpu, 0) + placed.total_bytes
    return held
