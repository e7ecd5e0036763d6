"""The context of each model: its own limit, and the one that the plan chooses where the config sets no `max_model_len`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cappella.config import Config
from cappella.errors import DoesNotFit
from cappella.placement import planner
from cappella.placement.footprint import Footprint
from cappella.placement.machine import Machine
from cappella.placement.planner import Plan

STEP_TOKENS = 1024
SEQUENCES = 2
"""So many sequences of a chosen context have room in each KV cache."""

Footprints = Mapping[str, Footprint]


def chosen(config: Config, footprints: Footprints, machine: Machine) -> Footprints:
    """The footprints with a context for every model: where none is set, the largest that all of these have room for.

    That is one context for all, in steps of 1024 tokens, with which each of them has room for two sequences of it; a model
    whose own limit is lower has that. What then has room to spare, as alone on its GPU, gets more. A longer context is never
    the reason for a split or for a turn.
    """
    open_ = [name for name, model in config.local.items() if model.max_model_len is None]
    if not open_:
        return footprints
    lengths = {name: footprints[name].model.context_tokens for name in open_}
    base = _outcome(config, footprints, machine)

    def fits(tried: Mapping[str, int]) -> bool:
        return base is not None and _outcome(config, _with(footprints, tried, SEQUENCES), machine) == base

    if not fits(lengths):
        return footprints
    growing = open_
    while growing:
        before, lengths = lengths, _grown(lengths, growing, footprints, fits)
        growing = [name for name in growing if _can_grow(lengths, name, footprints, fits)]
        # What each can have alone, not all can have at once.
        growing = growing[:-1] if lengths == before else growing
    return _with(footprints, lengths, SEQUENCES)


def _grown(
    lengths: Mapping[str, int],
    growing: Sequence[str],
    footprints: Footprints,
    fits: Callable[[Mapping[str, int]], bool],
) -> dict[str, int]:
    """The largest context that all of `growing` can have at once."""
    low = min(lengths[name] for name in growing) // STEP_TOKENS
    high = -(-max(footprints[name].own.default_tokens for name in growing) // STEP_TOKENS)
    while low < high:
        middle = (low + high + 1) // 2
        if fits(_raised(lengths, growing, footprints, middle * STEP_TOKENS)):
            low = middle
        else:
            high = middle - 1
    return _raised(lengths, growing, footprints, low * STEP_TOKENS)


def _can_grow(
    lengths: Mapping[str, int], name: str, footprints: Footprints, fits: Callable[[Mapping[str, int]], bool]
) -> bool:
    more = _raised(lengths, [name], footprints, lengths[name] + STEP_TOKENS)
    return more != lengths and fits(more)


def _raised(lengths: Mapping[str, int], names: Sequence[str], footprints: Footprints, tokens: int) -> dict[str, int]:
    """The contexts with at least this much for these models, as far as their own limits allow it."""
    more = {name: max(lengths[name], min(tokens, footprints[name].own.default_tokens)) for name in names}
    return {**lengths, **more}


def _outcome(config: Config, footprints: Footprints, machine: Machine) -> tuple[int, int] | None:
    """The turns and the GPUs that a plan takes; None if the models do not fit."""
    if not all(each.splits for each in footprints.values()):
        return None
    try:
        plan = planner.place(config, footprints, machine)
    except DoesNotFit:
        return None
    return len(plan.turns), sum(len(each.gpus) for each in plan.placed.values())


def _with(footprints: Footprints, lengths: Mapping[str, int], sequences: int = 1) -> dict[str, Footprint]:
    out = dict(footprints)
    for name, tokens in lengths.items():
        model = out[name].model.model_copy(update={"max_model_len": tokens})
        out[name] = replace(out[name], model=model, sequences=sequences)
    return out


def applied(config: Config, plan: Plan) -> Config:
    """The config as it is served: with the plan's contexts."""
    model_of = config.model_of
    lengths = {model_of[server]: placed.max_model_len for server, placed in plan.placed.items()}
    models = {
        name: model.model_copy(update={"max_model_len": lengths[name]}) if name in lengths else model
        for name, model in config.models.items()
    }
    return config.model_copy(update={"models": models})
