"""Assignment of models to GPUs: an exact search, because there are few models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import combinations

# More than ten models on eight unequal GPUs need; at the limit, the best assignment so far is used.
MAX_STEPS = 20_000
# On machines with more GPUs, only neighbours share a model.
MAX_MIXED = 8

Spans = Mapping[str, tuple[int, ...]]
"""The positions of each model's GPUs."""


@dataclass(frozen=True, slots=True)
class Item:
    """One model: its minimum bytes on each GPU, by the number of GPUs of the split. `pinned` fixes its GPUs."""

    name: str
    min_bytes: Mapping[int, int]
    pinned: tuple[int, ...] | None = None

    @property
    def size_bytes(self) -> int:
        return min(count * size for count, size in self.min_bytes.items())


@dataclass(slots=True)
class _Search:
    capacities: Sequence[int]
    used: list[int]
    nodes: Sequence[str | None]
    best: tuple[int, float, Spans] | None = None
    chosen: dict[str, tuple[int, ...]] = field(default_factory=dict)
    steps: int = 0


def pack(items: Sequence[Item], capacities: Sequence[int], nodes: Sequence[str | None] = ()) -> Spans | None:
    """The assignment with the fewest splits and, among those, the most even use of the GPUs; None if there is none.

    Even use means the smallest sum of the squared shares in use. `nodes` has the node of each GPU, if they are of several: no
    model is split over two.
    """
    search = _Search(capacities, [0] * len(capacities), nodes or [None] * len(capacities))
    ordered = sorted(items, key=lambda item: (item.pinned is None, -item.size_bytes, item.name))
    _place(search, ordered, splits=0, crowding=0.0)
    return search.best[2] if search.best else None


def _place(search: _Search, items: Sequence[Item], splits: int, crowding: float) -> None:
    search.steps += 1
    min_splits = splits + sum(min(item.min_bytes) - 1 for item in items)
    if search.steps > MAX_STEPS or (search.best and (min_splits, crowding) >= search.best[:2]):
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
    """Sets of GPUs that have room for the item: the smallest first, neighbours first; one of equivalent sets."""
    for count, size in sorted(item.min_bytes.items()):
        seen = set()
        for span in _sets(len(search.capacities), count) if item.pinned is None else [item.pinned]:
            if len({search.nodes[gpu] for gpu in span}) > 1:
                continue
            state = tuple(sorted((search.capacities[gpu], search.used[gpu]) for gpu in span))
            fits = all(search.used[gpu] + size <= search.capacities[gpu] for gpu in span)
            if fits and len(span) == count and state not in seen:
                seen.add(state)
                yield span, size


@cache
def _sets(gpus: int, count: int) -> list[tuple[int, ...]]:
    """All sets of this many GPUs; linked GPUs are neighbours, so aligned pairs, fours and eights come first."""
    every = combinations(range(gpus), count) if gpus <= MAX_MIXED else _windows(gpus, count)
    return sorted(every, key=lambda span: (span[0] % count, span[-1] - span[0], span))


def _windows(gpus: int, count: int) -> list[tuple[int, ...]]:
    return [tuple(range(at, at + count)) for at in range(gpus - count + 1)]
