"""Adaptive consistency: samples are asked in portions, and no more of them once the leading value is safe.

The lead is safe if it stays ahead of the next value with the probability `until`: that more than half of the answers with
one of these two values have the first, under a Beta distribution of those that there are.
"""

from collections.abc import Awaitable, Callable, Sequence
from math import comb

from cappella.config.options import Seat
from cappella.config.weighing import Adaptive
from cappella.ensemble import agreement
from cappella.ensemble.run import Answer, Call, Failure, Panel, Sampled
from cappella.extraction.extractors import Reading

Ask = Callable[[Sequence[Seat], int], Awaitable[Panel]]
"""Asks these seats; the number is of answers that there are already."""
Read = Callable[[Sequence[Answer]], Awaitable[Reading]]


async def ask_until_safe(
    seats: Sequence[Seat], adaptive: Adaptive, quorum: int, ask: Ask, read: Read
) -> tuple[Panel, Sampled]:
    """The answers of as many portions as it takes, and at least the quorum. A portion without an answer is the last."""
    answers: list[Answer] = []
    failures: list[Failure] = []
    calls: list[Call] = []
    before = 0
    most, lead, votes = max(seat.samples for seat in seats), 0.0, (0, 0)
    while before < most and (lead < adaptive.until or len(answers) < quorum):
        needed = max(_needed(votes, adaptive.until), quorum - len(answers))
        count = min(most - before, -(-needed // len(seats)))
        open_seats = [seat for seat in seats if seat.samples > before]
        panel = await ask([seat.portion(before, count) for seat in open_seats], len(answers))
        answers += panel.answers
        failures += panel.failures
        calls += panel.calls
        before += count
        votes = await _votes(answers, read)
        lead = certainty_of_lead(*votes)
        if not panel.answers:
            break
    asked = sum(min(seat.samples, before) for seat in seats)
    return Panel(answers, failures, calls), Sampled(asked, sum(seat.samples for seat in seats), lead)


def certainty_of_lead(first: int, second: int) -> float:
    """The probability that the value with `first` votes stays ahead of the one with `second`."""
    votes = first + second + 1
    return sum(comb(votes, k) for k in range(first + 1)) / (1 << votes)


async def _votes(answers: Sequence[Answer], read: Read) -> tuple[int, int]:
    """The votes of the two most frequent values."""
    sizes = [len(group) for group in agreement.groups(answers, await read(answers))] if answers else []
    return (*sizes, 0, 0)[0], (*sizes, 0, 0)[1]


def _needed(votes: tuple[int, int], until: float) -> int:
    """The fewest samples that can make the lead safe; one if it is."""
    first, second = votes
    needed = 1
    while certainty_of_lead(first + needed, second) < until:
        needed += 1
    return needed
