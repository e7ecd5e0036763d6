"""What would make a panel fit that does not: changes that were planned and found to work, the cheapest first."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from cappella.config import Config, Model
from cappella.errors import DoesNotFit
from cappella.placement import planner
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.machine import Device, Machine
from cappella.placement.planner import Plan

MAX_CHANGES = 3
MIN_CONTEXT = 2048
QUANTISED = (("fp8", 0.51), ("4 bits (AWQ or GPTQ)", 0.29))
"""Variants, and their share of 16-bit weights, with scales and what stays in 16 bits; the better one first."""


@dataclass(frozen=True, slots=True)
class Change:
    """`words` tell the operator what to do; `plan` is what comes of it."""

    words: str
    plan: Plan


def plan(config: Config, machine: Machine) -> Plan:
    """Where each local model lies. Raises ConfigError for a model that cannot be read; DoesNotFit with the cheapest changes."""
    config = config.model_copy(update={"models": config.local})
    if config.placement.memory_bytes is not None:
        machine = machine.limited(config.placement.memory_bytes)
    footprints = {name: footprint(name, model, machine) for name, model in config.local.items()}
    try:
        return planner.placed(config, footprints, machine)
    except DoesNotFit as error:
        changes = cheapest(config, footprints, machine)
        words = "; or ".join(change.words for change in changes)
        hint = f"Each of these would do: {words}" if words else "Take fewer or smaller models"
        raise DoesNotFit(error.place, error.problem, hint) from error


def cheapest(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> list[Change]:
    """At most three, from what costs nothing in quality to what costs money or time."""
    found: list[Change] = []
    for tried in _changes(config, footprints, machine):
        if tried is not None:
            found.append(tried)
        if len(found) == MAX_CHANGES:
            break
    return found


def _changes(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Iterator[Change | None]:
    yield _with_models(config, footprints, machine, "no kv_cache_bytes", _planned_cache)
    if machine.gpu:
        yield _with_models(config, footprints, machine, "kv_cache_dtype: fp8 for every model", _fp8_cache)
    yield _shorter_context(config, footprints, machine)
    yield from (_quantised(config, footprints, machine, kind, share) for kind, share in QUANTISED)
    yield _swapping(config, footprints, machine)
    yield _more_gpus(config, footprints, machine)


def _attempt(words: str, config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    try:
        return Change(words, planner.placed(config, footprints, machine))
    except DoesNotFit:
        return None


def _with_models(
    config: Config,
    footprints: Mapping[str, Footprint],
    machine: Machine,
    words: str,
    change: Callable[[Model], Model],
) -> Change | None:
    models = {name: change(model) for name, model in config.local.items()}
    if models == config.models:
        return None
    changed = {name: replace(found, model=models[name]) for name, found in footprints.items()}
    return _attempt(words, config.model_copy(update={"models": models}), changed, machine)


def _planned_cache(model: Model) -> Model:
    return model.model_copy(update={"kv_cache_bytes": None})


def _fp8_cache(model: Model) -> Model:
    return model.model_copy(update={"kv_cache_dtype": "fp8"})


def _shorter_context(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    """The longest context, halved from the longest there is, with which all fit, and no KV cache of a set size."""
    longest = max(model.max_model_len for model in config.local.values()) // 2
    while longest >= MIN_CONTEXT:

        def shorten(model: Model, most: int = longest) -> Model:
            return model.model_copy(update={"max_model_len": min(model.max_model_len, most), "kv_cache_bytes": None})

        words = f"max_model_len: {longest} at most, and no kv_cache_bytes"
        if change := _with_models(config, footprints, machine, words, shorten):
            return change
        longest //= 2
    return None


def _quantised(
    config: Config, footprints: Mapping[str, Footprint], machine: Machine, kind: str, share: float
) -> Change | None:
    """As few models as will do, the heaviest first."""
    plain = [found for found in footprints.values() if found.architecture.quantization is None]
    changed = dict(footprints)
    for count, found in enumerate(sorted(plain, key=lambda each: -each.weight_bytes(1)), 1):
        smaller = replace(found, tensors=None, published_bytes=int(found.weight_bytes(1) * share))
        changed[found.name] = smaller
        names = [each.name for each in plain if changed[each.name] is not each]
        words = f"{', '.join(names)} in {kind}" if count < len(footprints) else f"every model in {kind}"
        if change := _attempt(words, config, changed, machine):
            return change
    return None


def _swapping(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    swapping = config.model_copy(update={"placement": config.placement.model_copy(update={"swap": True})})
    change = _attempt("", swapping, footprints, machine)
    return change and replace(
        change, words=f"placement: {{swap: true}}: {len(change.plan.turns)} turns, each loaded anew"
    )


def _more_gpus(config: Config, footprints: Mapping[str, Footprint], machine: Machine) -> Change | None:
    largest = max(machine.devices, key=lambda device: device.total_bytes)
    devices = list(machine.devices)
    for more in (1, 2, 3, 4) if machine.gpu else ():
        index = max(device.index for device in devices) + 1
        devices.append(Device(f"GPU {index}", index, largest.total_bytes, largest.total_bytes))
        bigger = Machine(devices, gpu=True)
        found = {name: replace(each, machine=bigger) for name, each in footprints.items()}
        words = f"{more} more GPU{'s' * (more > 1)} of {largest.total_bytes / 2**30:.0f} GiB"
        if change := _attempt(words, config, found, bigger):
            return change
    return None
