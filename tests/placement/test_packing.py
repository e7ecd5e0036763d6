"""Properties of packing and sharing, over random machines and models."""

from collections.abc import Mapping, Sequence
from itertools import combinations, product

from hypothesis import given
from hypothesis import strategies as st

from cappella.placement import packing, sharing
from cappella.placement.packing import Item, Spans
from cappella.placement.sharing import CacheDemand

SIZES = st.integers(min_value=1, max_value=100)


@st.composite
def items(draw: st.DrawFn, most: int = 5) -> list[Item]:
    out = []
    for number in range(draw(st.integers(1, most))):
        whole = draw(SIZES)
        counts = draw(st.sampled_from([(1,), (1, 2), (1, 2, 4), (2,), (2, 4)]))
        # A split costs more than its share.
        out.append(Item(f"m{number}", {n: -(-whole // n) + 3 * (n > 1) for n in counts}))
    return out


def used(found: Spans, wanted: Sequence[Item], count: int) -> list[int]:
    least = {item.name: item.min_bytes for item in wanted}
    return [sum(least[name][len(span)] for name, span in found.items() if gpu in span) for gpu in range(count)]


def brute_force(wanted: Sequence[Item], capacities: Sequence[int]) -> int | None:
    """The smallest number of additional GPUs for splits; None if nothing fits."""
    spans = [[span for n in item.min_bytes for span in combinations(range(len(capacities)), n)] for item in wanted]
    best = None
    for chosen in product(*spans):
        found = {item.name: span for item, span in zip(wanted, chosen, strict=True)}
        if all(size <= room for size, room in zip(used(found, wanted, len(capacities)), capacities, strict=True)):
            splits = sum(len(span) - 1 for span in chosen)
            best = splits if best is None else min(best, splits)
    return best


@given(items(), st.lists(SIZES, min_size=1, max_size=8))
def test_no_gpu_is_given_more_than_it_has(wanted: list[Item], capacities: list[int]) -> None:
    found = packing.pack(wanted, capacities)
    if found is not None:
        assert set(found) == {item.name for item in wanted}
        assert all(size <= room for size, room in zip(used(found, wanted, len(capacities)), capacities, strict=True))


@given(items(most=4), st.lists(st.sampled_from([40, 80, 100]), min_size=1, max_size=4))
def test_what_can_fit_is_found_and_split_least(wanted: list[Item], capacities: list[int]) -> None:
    found = packing.pack(wanted, capacities)
    splits = None if found is None else sum(len(span) - 1 for span in found.values())
    assert splits == brute_force(wanted, capacities)


@given(items(), st.lists(SIZES, min_size=1, max_size=6), SIZES)
def test_what_fits_still_fits_with_more_memory(wanted: list[Item], capacities: list[int], more: int) -> None:
    if packing.pack(wanted, capacities) is not None:
        assert packing.pack(wanted, [room + more for room in capacities]) is not None


def test_models_are_spread_where_nothing_needs_a_split() -> None:
    found = packing.pack([Item(name, {1: 40, 2: 21}) for name in "abcd"], [80, 80, 80, 80])
    assert found is not None
    assert sorted(found.values()) == [(0,), (1,), (2,), (3,)]


def test_models_are_spread_beside_one_that_fills_its_gpus() -> None:
    found = packing.pack([Item("big", {2: 78}), *(Item(name, {1: 20}) for name in "abcd")], [80, 80, 80, 80])
    assert found is not None
    assert sorted(found[name] for name in "abcd") == [(2,), (2,), (3,), (3,)]


def test_a_pinned_model_lies_where_it_is_pinned() -> None:
    found = packing.pack([Item("a", {2: 30}, pinned=(1, 2)), Item("b", {1: 60})], [80, 80, 80])
    assert found == {"a": (1, 2), "b": (0,)}


def test_the_order_of_unlike_gpus_makes_no_difference() -> None:
    split = [Item("a", {2: 70}), Item("b", {1: 20})]
    assert packing.pack(split, [24, 80, 80]) == {"a": (1, 2), "b": (0,)}
    assert packing.pack(split, [80, 24, 80]) == {"a": (0, 2), "b": (1,)}


def test_a_split_takes_an_aligned_pair_of_neighbours_where_it_can() -> None:
    found = packing.pack([Item("a", {1: 60}, pinned=(1,)), Item("b", {2: 40})], [80, 80, 80, 80])
    assert found is not None
    assert found["b"] == (2, 3)


def test_ten_models_on_eight_gpus_are_placed_at_once() -> None:
    many = [Item(f"m{n}", {1: 30 + n, 2: 20 + n, 4: 12 + n}) for n in range(10)]
    assert packing.pack(many, [80] * 8) is not None
    assert packing.pack(many, [20] * 8) is None


@st.composite
def demands(draw: st.DrawFn) -> list[CacheDemand]:
    spans = st.sampled_from([(0,), (1,), (2,), (3,), (0, 1), (2, 3), (0, 1, 2, 3)])
    weights = st.floats(min_value=0.1, max_value=10)
    count = draw(st.integers(1, 6))
    return [CacheDemand(f"m{n}", draw(spans), draw(weights), draw(st.integers(0, 200))) for n in range(count)]


@given(demands(), st.lists(st.integers(0, 500), min_size=4, max_size=4))
def test_shares_exceed_neither_the_memory_nor_the_demand(wanted: list[CacheDemand], left: list[int]) -> None:
    given_bytes: Mapping[str, int] = sharing.share(wanted, left)
    for demand in wanted:
        assert 0 <= given_bytes[demand.name] <= demand.max_bytes
    for gpu in range(4):
        assert sum(given_bytes[demand.name] for demand in wanted if gpu in demand.span) <= left[gpu]


@given(demands(), st.lists(st.integers(0, 500), min_size=4, max_size=4))
def test_no_demand_is_left_short_while_memory_is_free(wanted: list[CacheDemand], left: list[int]) -> None:
    given_bytes = sharing.share(wanted, left)
    rest = [left[gpu] - sum(given_bytes[w.name] for w in wanted if gpu in w.span) for gpu in range(4)]
    for demand in wanted:
        # Bytes are integers: each demand may lose one.
        assert given_bytes[demand.name] >= demand.max_bytes - 1 or min(rest[gpu] for gpu in demand.span) <= len(wanted)
