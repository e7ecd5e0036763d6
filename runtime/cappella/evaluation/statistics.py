"""Paired statistics: bootstrap intervals with a seed, McNemar's exact test, Holm's correction, and a test of even shares."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb, sqrt
from random import Random
from statistics import NormalDist

RESAMPLES = 2000
SEED = 20260101
LEVEL = 0.05


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean, and between which limits it lies in 95 of 100 samples of questions."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two ways on the questions that both answered: the difference in accuracy, and how often only one was right.

    `p` is McNemar's exact probability of so uneven a split if neither were better. `ours` and `theirs` are the accuracies.
    """

    n: int
    difference: Interval
    wins: int
    losses: int
    p: float
    ours: float
    theirs: float


def interval(values: Sequence[float]) -> Interval | None:
    """The mean with its 95% interval, by resampling the questions; None without values."""
    if not values:
        return None
    draw, n = Random(SEED), len(values)
    means = sorted(sum(draw.choices(values, k=n)) / n for _ in range(RESAMPLES))
    low, high = means[int(0.025 * RESAMPLES)], means[int(0.975 * RESAMPLES) - 1]
    return Interval(sum(values) / n, low, high)


def compare(ours: Sequence[bool | None], theirs: Sequence[bool | None]) -> Comparison | None:
    """Compares on the questions that both have; None where there is none."""
    pairs = [(a, b) for a, b in zip(ours, theirs, strict=True) if a is not None and b is not None]
    wins = sum(a and not b for a, b in pairs)
    losses = sum(b and not a for a, b in pairs)
    difference = interval([float(a) - float(b) for a, b in pairs])
    if difference is None:
        return None
    shares = [sum(each) / len(pairs) for each in zip(*pairs, strict=True)]
    return Comparison(len(pairs), difference, wins, losses, mcnemar(wins, losses), *shares)


def mcnemar(wins: int, losses: int) -> float:
    """The two-sided exact probability of a split at least so uneven, by a fair coin."""
    n = wins + losses
    if n == 0:
        return 1.0
    tail = sum(comb(n, k) for k in range(min(wins, losses) + 1))
    # Whole numbers as long as possible: a float cannot hold 2 to the power of 1,100.
    return min(1.0, 2 * tail / (1 << n))


def holm(probabilities: Mapping[str, float]) -> dict[str, float]:
    """The probabilities corrected for having looked at all of them."""
    corrected: dict[str, float] = {}
    largest = 0.0
    for rank, name in enumerate(sorted(probabilities, key=lambda each: probabilities[each])):
        largest = max(largest, min(1.0, probabilities[name] * (len(probabilities) - rank)))
        corrected[name] = largest
    return corrected


def uneven(counts: Sequence[int], expected: Sequence[float]) -> float:
    """The probability of shares so far from the expected ones, by chi-square (Wilson and Hilferty's approximation)."""
    cells = [(count, share) for count, share in zip(counts, expected, strict=True) if share > 0]
    freedom = len(cells) - 1
    if freedom < 1:
        return 1.0
    square = sum((count - share) ** 2 / share for count, share in cells)
    scale = 2 / (9 * freedom)
    return 1 - NormalDist().cdf(((square / freedom) ** (1 / 3) - (1 - scale)) / sqrt(scale))


def questions_to_decide(comparison: Comparison) -> int | None:
    """About how many questions would show a difference of this size, in four of five samples; None for no difference."""
    share = (comparison.wins + comparison.losses) / comparison.n
    difference = abs(comparison.wins - comparison.losses) / comparison.n
    if difference == 0:
        return None
    z = NormalDist().inv_cdf(1 - LEVEL / 2) + NormalDist().inv_cdf(0.8)
    return round(z * z * share / difference**2)
