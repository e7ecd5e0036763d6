"""Distribution of each GPU's remaining memory to KV caches, by weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CacheDemand:
    """A model that can use up to `max_bytes` more on each GPU of its `span`."""

    name: str
    span: tuple[int, ...]
    weight: float
    max_bytes: int


def share(demands: Sequence[CacheDemand], left_bytes: Sequence[int]) -> Mapping[str, int]:
    """Additional bytes per GPU for each model: all grow in proportion to their weights until satisfied or a GPU is full."""
    left = [float(size) for size in left_bytes]
    given = {demand.name: 0.0 for demand in demands}
    growing = [demand for demand in demands if demand.max_bytes > 0]
    while growing:
        on = {
            gpu: sum(demand.weight for demand in growing if gpu in demand.span)
            for demand in growing
            for gpu in demand.span
        }
        until_full = {gpu: max(0.0, left[gpu]) / weight for gpu, weight in on.items()}
        until_enough = {demand.name: (demand.max_bytes - given[demand.name]) / demand.weight for demand in growing}
        step = min(*until_full.values(), *until_enough.values())
        for demand in growing:
            given[demand.name] += step * demand.weight
            for gpu in demand.span:
                left[gpu] -= step * demand.weight
        full = {gpu for gpu, room in until_full.items() if room <= step}
        growing = [demand for demand in growing if until_enough[demand.name] > step and not full & set(demand.span)]
    return {name: int(size) for name, size in given.items()}
