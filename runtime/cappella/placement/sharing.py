"""What is left of each GPU's memory, shared out by weight."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Wish:
    """A model that takes the same bytes more on each GPU of its `span`, at most `most_bytes`."""

    name: str
    span: tuple[int, ...]
    weight: float
    most_bytes: int


def share(wishes: Sequence[Wish], left_bytes: Sequence[int]) -> Mapping[str, int]:
    """Bytes for each wish: all grow together, each by its weight, until it has enough or one of its GPUs is full."""
    left = [float(size) for size in left_bytes]
    given = {wish.name: 0.0 for wish in wishes}
    growing = [wish for wish in wishes if wish.most_bytes > 0]
    while growing:
        on = {gpu: sum(wish.weight for wish in growing if gpu in wish.span) for wish in growing for gpu in wish.span}
        until_full = {gpu: max(0.0, left[gpu]) / weight for gpu, weight in on.items()}
        until_enough = {wish.name: (wish.most_bytes - given[wish.name]) / wish.weight for wish in growing}
        step = min(*until_full.values(), *until_enough.values())
        for wish in growing:
            given[wish.name] += step * wish.weight
            for gpu in wish.span:
                left[gpu] -= step * wish.weight
        full = {gpu for gpu, room in until_full.items() if room <= step}
        growing = [wish for wish in growing if until_enough[wish.name] > step and not full & set(wish.span)]
    return {name: int(size) for name, size in given.items()}
