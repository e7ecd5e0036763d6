"""Putting load on a system: how much of it is under way, and what is counted."""

import asyncio
import itertools

import pytest

from cappella.bench.load import Load, put
from cappella.bench.systems import BenchError, Reply, Sizes

SIZES = Sizes(panel=3, answer_tokens=8)


class Busy:
    """A system that takes a moment, fails where it is told to, and knows how many asks were under way at once."""

    name = "busy"

    def __init__(self, fails: str = "never") -> None:
        self.under_way = self.most = 0
        self.asked: list[str] = []
        self._fails = fails

    async def ask(self, prompt: str, sizes: Sizes) -> Reply:
        self.asked.append(prompt)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0.01)
        self.under_way -= 1
        if prompt == self._fails:
            raise BenchError("it would not")
        return Reply(0.005, 0.01, 8)


async def test_a_closed_loop_keeps_so_many_runs_under_way_and_asks_each_prompt_once() -> None:
    busy = Busy()
    batch = await put(busy, Load(concurrency=4), SIZES, map(str, itertools.count()), 10)
    assert busy.most == 4
    assert sorted(busy.asked, key=int) == [str(number) for number in range(10)]
    assert len(batch.replies) == 10


async def test_an_open_loop_does_not_wait_for_replies() -> None:
    busy = Busy()
    batch = await put(busy, Load(rate_per_s=2000), SIZES, map(str, itertools.count()), 40)
    assert busy.most > 4
    assert len(batch.replies) == 40


async def test_a_run_that_fails_is_counted_and_not_repeated() -> None:
    busy = Busy(fails="3")
    batch = await put(busy, Load(concurrency=2), SIZES, map(str, itertools.count()), 6)
    assert (len(batch.replies), batch.errors, len(busy.asked)) == (5, ["it would not"], 6)


def test_members_get_lengths_around_the_asked_one_and_the_same_ones_for_the_same_prompt() -> None:
    lengths = [SIZES.of_member(member, str(number)) for member in ("ann", "bob") for number in range(200)]
    again = [SIZES.of_member(member, str(number)) for member in ("ann", "bob") for number in range(200)]
    assert lengths == again
    assert {4, 12} <= {length for length in lengths if length} <= set(range(4, 13))
    assert Sizes(3, None).of_member("ann", "x") is None


@pytest.mark.parametrize(("load", "words"), [(Load(4), "4 at once"), (Load(rate_per_s=0.5), "0.5/s")])
def test_a_load_has_words(load: Load, words: str) -> None:
    assert str(load) == words
