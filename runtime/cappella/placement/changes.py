"""Changes with which a config that does not fit would fit: each was planned, the cheapest first, and most are YAML to paste."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import yaml

from cappella.config import Config, Model
from cappella.config.cards import Card
from cappella.errors import ConfigError, DoesNotFit
from cappella.placement import planner, quantisation, variants
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.machine import Machine, added_device
from cappella.placement.planner import Plan

MAX_CHANGES = 3
MIN_CONTEXT = 2048

Footprints = Mapping[str, Footprint]


@dataclass(frozen=True, slots=True)
class Change:
    """`description` tells the operator what to do; `plan` is the result; `paste` is YAML, empty for what no config can do."""

    description: str
    plan: Plan
    paste: str = ""


@dataclass(frozen=True, slots=True)
class Trial:
    """A config that does not fit, with what was measured of it."""

    config: Config
    footprints: Footprints
    machine: Machine

    def attempt(
        self, description: str, changed: Footprints, placement: Mapping[str, object] | None = None
    ) -> Change | None:
        """The change to these footprints, if it is one and is enough."""
        models = {name: each.model for name, each in changed.items()}
        section = self.config.placement.model_copy(update=dict(placement or {}))
        config = self.config.model_copy(update={"models": models, "placement": section})
        if changed == self.footprints and config == self.config:
            return None
        try:
            plan = planner.place(config, changed, self.machine)
        except DoesNotFit:
            return None
        return Change(description, plan, _paste(description, self.footprints, changed, placement))

    def with_each(self, description: str, change: Callable[[Model], Model]) -> Change | None:
        models = {name: change(each.model) for name, each in self.footprints.items()}
        return self.attempt(description, with_models(self.footprints, models))


def cheapest(config: Config, footprints: Footprints, machine: Machine) -> list[Change]:
    """At most three changes: first those that cost no quality, last those that cost money or time."""
    return list(islice(_different(_all(Trial(config, footprints, machine))), MAX_CHANGES))


def _different(found: Iterable[Change | None]) -> Iterator[Change]:
    seen: set[str] = set()
    for change in found:
        if change and change.description not in seen:
            seen.add(change.description)
            yield change


def _all(trial: Trial) -> Iterator[Change | None]:
    yield trial.with_each("no kv_cache_bytes", lambda model: model.model_copy(update={"kv_cache_bytes": None}))
    if reads_fp8_cache(trial.machine):
        yield trial.with_each("kv_cache_dtype: fp8 for every model", with_fp8_cache)
    yield _shorter_context(trial)
    yield _other_weights(trial, variants.quantised)
    yield _quantised_on_load(trial, lambda _: [])
    yield _quantised_on_load(trial, variants.quantised)
    yield _other_weights(trial, variants.smaller)
    yield _in_four_bits(trial)
    yield _fewer_replicas(trial)
    yield _swapping(trial)
    yield _more_gpus(trial)


def reads_fp8_cache(machine: Machine) -> bool:
    """Whether all GPUs, as far as they are known, can keep a KV cache in fp8."""
    known = [device.capability for device in machine.devices if device.capability]
    return machine.gpu and all(capability >= quantisation.FP8_CACHE_CAPABILITY for capability in known)


def with_fp8_cache(model: Model) -> Model:
    return model.model_copy(update={"kv_cache_dtype": "fp8"})


def with_models(footprints: Footprints, models: Mapping[str, Model]) -> dict[str, Footprint]:
    return {name: replace(each, model=models[name]) for name, each in footprints.items()}


def _shorter_context(trial: Trial) -> Change | None:
    """The context with which all models fit, by halving the longest one, and no configured KV cache size."""
    longest = max(each.model.context_tokens for each in trial.footprints.values()) // 2
    while longest >= MIN_CONTEXT:

        def shorten(model: Model, limit: int = longest) -> Model:
            return model.model_copy(update={"max_model_len": min(model.context_tokens, limit), "kv_cache_bytes": None})

        if change := trial.with_each(f"max_model_len: {longest} at most, and no kv_cache_bytes", shorten):
            return change
        longest //= 2
    return None


def _other_weights(trial: Trial, candidates: Callable[[str], Iterable[Card]]) -> Change | None:
    """Other weights for as few models as possible, the largest first, and of those the largest that are small enough."""
    changed, words = dict(trial.footprints), ""
    for name, old in _by_size(trial.footprints):
        hub_id = variants.published_id(old.model)
        said = words
        for card in candidates(hub_id) if hub_id else ():
            if new := _of_card(old, card, trial.machine):
                changed[name], words = new, f"{said}{card.hub_id} instead of {hub_id}, "
                if change := trial.attempt(words.removesuffix(", "), changed):
                    return change
    return None


def _of_card(old: Footprint, card: Card, machine: Machine) -> Footprint | None:
    """The model with the weights of a card; None if it cannot be, for instance because its context is shorter."""
    try:
        return replace(footprint(old.name, variants.replaced(old.model, card), machine), sequences=old.sequences)
    except ConfigError:
        return None


def _quantised_on_load(trial: Trial, published: Callable[[str], Sequence[Card]]) -> Change | None:
    """Weights that vLLM quantises to fp8, or the smallest of the published ones, for as few models as possible."""
    if not trial.machine.gpu:
        return None
    changed, words, names = dict(trial.footprints), "", []
    for name, old in _in_16_bits(trial.footprints):
        hub_id = variants.published_id(old.model)
        cards = published(hub_id) if hub_id else ()
        if cards and (new := _of_card(old, cards[-1], trial.machine)):
            changed[name], words = new, f"{words}{cards[-1].hub_id} instead of {hub_id}, "
        else:
            arguments = {**old.model.engine_args, "quantization": quantisation.FP8_ON_LOAD}
            changed[name] = replace(old, model=old.model.model_copy(update={"engine_args": arguments}))
            names.append(name)
        on_load = f"{', '.join(names)} in fp8 (quantised while they load)" if names else ""
        if change := trial.attempt(f"{words}{on_load}".removesuffix(", "), changed):
            return change
    return None


def _in_four_bits(trial: Trial) -> Change | None:
    """Weights in 4 bits, which the operator has to find, for as few models as possible."""
    changed, names = dict(trial.footprints), []
    for name, old in _in_16_bits(trial.footprints):
        size_bytes = int(old.stored_bytes(1) * quantisation.FOUR_BITS_SHARE)
        changed[name] = replace(old, tensors=None, published_bytes=size_bytes)
        names.append(name)
        if change := trial.attempt(f"{', '.join(names)} in 4 bits (AWQ or GPTQ)", changed):
            return replace(change, paste="")
    return None


def _by_size(footprints: Footprints) -> list[tuple[str, Footprint]]:
    return sorted(footprints.items(), key=lambda item: -item[1].weight_bytes(1))


def _in_16_bits(footprints: Footprints) -> list[tuple[str, Footprint]]:
    return [item for item in _by_size(footprints) if item[1].architecture.quantisation.method is None]


def _several(trial: Trial) -> list[str]:
    return [name for name, each in trial.footprints.items() if each.model.replicas > 1]


def _fewer_replicas(trial: Trial) -> Change | None:
    """As many replicas as fit: one at most of each model, then two, as long as there is room."""
    best, several = None, _several(trial)
    most = max((trial.footprints[name].model.replicas for name in several), default=1)
    for limit in range(1, most):
        models = {name: each.model for name, each in trial.footprints.items()}
        fewer = {name: min(limit, models[name].replicas) for name in several}
        models |= {name: models[name].model_copy(update={"replicas": count}) for name, count in fewer.items()}
        words = ", ".join(f"replicas: {count} of {name}" for name, count in fewer.items())
        change = trial.attempt(words, with_models(trial.footprints, models))
        if change is None:
            break
        best = change
    return best


def _swapping(trial: Trial) -> Change | None:
    if _several(trial):
        return None
    change = trial.attempt("placement: {swap: true}", trial.footprints, {"swap": True})
    return change and replace(
        change, description=f"{change.description}: {len(change.plan.turns)} turns, each loaded anew"
    )


def _more_gpus(trial: Trial) -> Change | None:
    largest = max(trial.machine.devices, key=lambda device: device.total_bytes)
    devices = list(trial.machine.devices)
    for more in (1, 2, 3, 4) if trial.machine.gpu else ():
        index = max(device.index for device in devices) + 1
        devices.append(added_device(largest, index))
        bigger = Machine(tuple(devices), gpu=True)
        changed = {name: replace(each, machine=bigger) for name, each in trial.footprints.items()}
        which = largest.kind.name if largest.kind else f"GPU{'s' * (more > 1)} of {largest.total_bytes / 2**30:.0f} GiB"
        if change := Trial(trial.config, trial.footprints, bigger).attempt(f"{more} more {which}", changed):
            return replace(change, paste="")
    return None


def _paste(description: str, before: Footprints, after: Footprints, placement: Mapping[str, object] | None) -> str:
    """The keys that differ, as YAML under a comment that also names keys that go; empty if none is set."""
    keys = {name: _keys(before[name].model, after[name].model) for name in before}
    set_ = {name: {key: value for key, value in each.items() if value is not None} for name, each in keys.items()}
    gone = [f"{name}.{key}" for name, each in keys.items() for key, value in each.items() if value is None]
    sections: dict[str, object] = {}
    if models := {name: each for name, each in set_.items() if each}:
        sections["models"] = models
    if placement:
        sections["placement"] = dict(placement)
    if not sections:
        return ""
    comments = [f"# {description}", *([f"# Remove {', '.join(gone)}."] if gone else [])]
    return "\n".join([*comments, yaml.safe_dump(sections, sort_keys=False, default_flow_style=None)])


def _keys(old: Model, new: Model) -> dict[str, object]:
    """The keys of a model in a config that differ, None for those that go."""
    differ = {key: getattr(new, key) for key in Model.model_fields if getattr(old, key) != getattr(new, key)}
    if "weights" in differ:
        hub_id = variants.published_id(new)
        # A card that the config names would be that of the old weights.
        differ |= {"weights": hub_id, "card": hub_id}
        if variants.is_found_by_name(old):
            del differ["card"]
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in differ.items()}
