"""Changes with which a config that does not fit would fit: each was planned, the cheapest first."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice

from cappella.config import Config, Model
from cappella.errors import DoesNotFit
from cappella.placement import contexts, planner, quantisation
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.machine import Device, Machine
from cappella.placement.planner import Plan

MAX_CHANGES = 3
MIN_CONTEXT = 2048


@dataclass(frozen=True, slots=True)
class Change:
    """`description` tells the operator what to do; `plan` is the result."""

    description: str
    plan: Plan


def plan(config: Config, machine: Machine) -> Plan:
    """The placement of the local models. Raises ConfigError for unreadable models; DoesNotFit with the cheapest changes."""
    config, footprints, machine = _measured(config, machine)
    try:
        return planner.place(config, footprints, machine)
    except DoesNotFit as error:
        changes = cheapest(config, footprints, machine)
        options = "; or ".join(change.description for change in changes)
        hint = f"Each of these would do: {options}" if options else "Use fewer or smaller models"
        raise DoesNotFit(error.place, error.problem, hint) from error


def found(config: Config, machine: Machine) -> Plan | None:
    """The placement, or None if the models do not fit: at once, since it looks for no changes. Raises ConfigError."""
    try:
        return planner.place(*_measured(config, machine))
    except DoesNotFit:
        return None


def _measured(config: Config, machine: Machine) -> tuple[Config, Mapping[str, Footprint], Machine]:
    """The config of the local models with their contexts, the footprints, and the machine as far as it may be used."""
    config = config.model_copy(update={"models": config.local})
    if config.placement.memory_bytes is not None:
        machine = machine.limited(config.placement.memory_bytes)
    least = {name: footprint(name, model, machine) for name, model in config.local.items()}
    footprints = contexts.chosen(config, least, machine)
    models = {name: each.model for name, each in footprints.items()}
    return config.model_copy(update={"models": models}), footprints, machine


def cheapest(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> list[Change]:
    """At most three changes: first those that cost no quality, last those that cost money or time."""
    working = (change for change in _changes(config, footprints, machine) if change is not None)
    return list(islice(working, MAX_CHANGES))


def _changes(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Iterator[Change | None]:
    yield _with_models(config, footprints, machine, "no kv_cache_bytes", _planned_cache)
    if machine.gpu:
        yield _with_models(config, footprints, machine, "kv_cache_dtype: fp8 for every model", _fp8_cache)
    yield _shorter_context(config, footprints, machine)
    yield from (_quantised(config, footprints, machine, kind, share) for kind, share in quantisation.VARIANTS)
    yield _swapping(config, footprints, machine)
    yield _more_gpus(config, footprints, machine)


def _attempt(description: str, config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    try:
        return Change(description, planner.place(config, footprints, machine))
    except DoesNotFit:
        return None


def _with_models(
    config: Config,
    footprints: Mapping[str, Footprint],
    machine: Machine,
    description: str,
    change: Callable[[Model], Model],
) -> Change | None:
    models = {name: change(model) for name, model in config.local.items()}
    if models == config.models:
        return None
    changed = {name: replace(each, model=models[name]) for name, each in footprints.items()}
    return _attempt(description, config.model_copy(update={"models": models}), changed, machine)


def _planned_cache(model: Model) -> Model:
    return model.model_copy(update={"kv_cache_bytes": None})


def _fp8_cache(model: Model) -> Model:
    return model.model_copy(update={"kv_cache_dtype": "fp8"})


def _shorter_context(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    """The context with which all models fit, by halving the longest one, and no configured KV cache size."""
    longest = max(model.context_tokens for model in config.local.values()) // 2
    while longest >= MIN_CONTEXT:

        def shorten(model: Model, limit: int = longest) -> Model:
            return model.model_copy(update={"max_model_len": min(model.context_tokens, limit), "kv_cache_bytes": None})

        description = f"max_model_len: {longest} at most, and no kv_cache_bytes"
        if change := _with_models(config, footprints, machine, description, shorten):
            return change
        longest //= 2
    return None


def _quantised(
    config: Config, footprints: Mapping[str, Footprint], machine: Machine, kind: str, share: float
) -> Change | None:
    """Quantises as few models as possible, the largest first."""
    plain = [each for each in footprints.values() if each.architecture.quantisation.method is None]
    changed = dict(footprints)
    for count, largest in enumerate(sorted(plain, key=lambda each: -each.weight_bytes(1)), 1):
        smaller = replace(largest, tensors=None, published_bytes=int(largest.weight_bytes(1) * share))
        changed[largest.name] = smaller
        names = [each.name for each in plain if changed[each.name] is not each]
        description = f"{', '.join(names)} in {kind}" if count < len(footprints) else f"every model in {kind}"
        if change := _attempt(description, config, changed, machine):
            return change
    return None


def _swapping(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    swapping = config.model_copy(update={"placement": config.placement.model_copy(update={"swap": True})})
    change = _attempt("", swapping, footprints, machine)
    return change and replace(
        change, description=f"placement: {{swap: true}}: {len(change.plan.turns)} turns, each loaded anew"
    )


def _more_gpus(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    largest = max(machine.devices, key=lambda device: device.total_bytes)
    devices = list(machine.devices)
    for more in (1, 2, 3, 4) if machine.gpu else ():
        index = max(device.index for device in devices) + 1
        devices.append(Device(f"GPU {index}", index, largest.total_bytes, largest.total_bytes))
        bigger = Machine(devices, gpu=True)
        changed = {name: replace(each, machine=bigger) for name, each in footprints.items()}
        description = f"{more} more GPU{'s' * (more > 1)} of {largest.total_bytes / 2**30:.0f} GiB"
        if change := _attempt(description, config, changed, bigger):
            return change
    return None
