"""Which model lies on which GPUs: an exact search, since there are few models."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# More than ten models on eight unlike GPUs could take; the best that was found until then stands.
MOST_STEPS = 100_000

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
    if search.steps > MOST_STEPS or (search.best and (splits, crowding) >= search.best[:2]):
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
    """Neighbours that hold the item, fewest first; of those that are alike, one."""
    for count, size in sorted(item.least_bytes.items()):
        seen = set()
        for start in range(0, len(search.capacities) - count + 1, count):
            span = tuple(range(start, start + count)) if item.only is None else item.only
            alike = _surroundings(search, start, count)
            fits = all(search.used[gpu] + size <= search.capacities[gpu] for gpu in span)
            if fits and len(span) == count and alike not in seen:
                seen.add(alike)
                yield span, size
            if item.only is not None:
                break


def _surroundings(search: _Search, start: int, count: int) -> tuple[Any, ...]:
    """Equal for spans between which nothing can tell: themselves, their neighbours, and the neighbours of those."""
    out = []
    while True:
        out.append(_state(search, start, count))
        if count >= len(search.capacities):
            return tuple(out)
        count *= 2
        start -= start % count


def _state(search: _Search, start: int, count: int) -> tuple[Any, ...]:
    if count == 1:
        return (search.capacities[start], search.used[start]) if start < len(search.capacities) else ()
    half = count // 2
    return tuple(sorted((_state(search, start, half), _state(search, start + half, half))))
