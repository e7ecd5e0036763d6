"""Which model lies on which GPUs: an exact search, since there are few models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations

# More than ten models on eight unlike GPUs could take; the best that was found until then stands.
MAX_STEPS = 20_000
# Of more GPUs only neighbours share a model.
MAX_MIXED = 8

Spans = Mapping[str, tuple[int, ...]]
"""For each model, the positions of its GPUs."""


@dataclass(frozen=True, slots=True)
class Item:
    """One model: the least bytes that it takes on each GPU, by how many GPUs it is split over. `only` pins it."""

    name: str
    least_bytes: Mapping[int, int]
    only: tuple[int, ...] | None = None

    @property
    def size_bytes(self) -> int:
        return min(count * size for count, size in self.least_bytes.items())


@dataclass(slots=True)
class _Search:
    capacities: Sequence[int]
    used: list[int]
    best: tuple[int, float, Spans] | None = None
    chosen: dict[str, tuple[int, ...]] = field(default_factory=dict)
    steps: int = 0


def pack(items: Sequence[Item], capacities: Sequence[int]) -> Spans | None:
    """The way that splits least and, of those, spreads best: the squares of the shares in use add up to least.

    None if there is no way.
    """
    search = _Search(capacities, [0] * len(capacities))
    in_turn = sorted(items, key=lambda item: (item.only is None, -item.size_bytes, item.name))
    _place(search, in_turn, splits=0, crowding=0.0)
    return search.best[2] if search.best else None


def _place(search: _Search, items: Sequence[Item], splits: int, crowding: float) -> None:
    search.steps += 1
    at_least = splits + sum(min(item.least_bytes) - 1 for item in items)
    if search.steps > MAX_STEPS or (search.best and (at_least, crowding) >= search.best[:2]):
        return
    if not items:
        search.best = (splits, crowding, dict(search.chosen))
        return
    item, *rest = items
    for span, size in _spans(search, item):
        before = _crowding(search, span)
        for gpu in span:
            search.used[gpu] += size
        added = _crowding(search, span) - before
        search.chosen[item.name] = span
        _place(search, rest, splits + len(span) - 1, crowding + added)
        for gpu in span:
            search.used[gpu] -= size


def _crowding(search: _Search, span: tuple[int, ...]) -> float:
    return sum((search.used[gpu] / search.capacities[gpu]) ** 2 for gpu in span)


def _spans(search: _Search, item: Item) -> Iterator[tuple[tuple[int, ...], int]]:
    """GPUs that hold the item, fewest first, and neighbours first; of sets that are alike, one."""
    for count, size in sorted(item.least_bytes.items()):
        seen = set()
        for span in _sets(len(search.capacities), count) if item.only is None else [item.only]:
            alike = tuple(sorted((search.capacities[gpu], search.used[gpu]) for gpu in span))
            fits = all(search.used[gpu] + size <= search.capacities[gpu] for gpu in span)
            if fits and len(span) == count and alike not in seen:
                seen.add(alike)
                yield span, size


@cache
def _sets(gpus: int, count: int) -> list[tuple[int, ...]]:
    """Linked GPUs lie side by side: pairs, fours and eights come first, any others after them."""
    every = combinations(range(gpus), count) if gpus <= MAX_MIXED else _windows(gpus, count)
    return sorted(every, key=lambda span: (span[0] % count, span[-1] - span[0], span))


def _windows(gpus: int, count: int) -> list[tuple[int, ...]]:
    return [tuple(range(at, at + count)) for at in range(gpus - count + 1)]
