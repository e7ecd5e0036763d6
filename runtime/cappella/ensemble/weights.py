"""How far each member is trusted: the log-odds of `weights`, as a prior of its answers and as the weight of its votes."""

from collections.abc import Mapping, Sequence
from math import log

from cappella.config.options import Settings
from cappella.ensemble.run import Answer

WRONG_VALUES = 10
"""How many wrong values a question is taken to have: wrong answers rarely agree, so that a vote of one who is often wrong
still says something."""


def priors(answers: Sequence[Answer], settings: Settings) -> Mapping[str, float]:
    """The log-odds of each answer by whose it is; 0 for all without weights, and the mean of the rest for one without."""
    given = {answer.name: _of(answer.name, settings) for answer in answers}
    known = [weight for weight in given.values() if weight is not None]
    usual = sum(known) / len(known) if known else 0.0
    return {name: usual if weight is None else weight for name, weight in given.items()}


def votes(answers: Sequence[Answer], settings: Settings) -> Mapping[str, float]:
    """The weight of each answer's vote, never below 0: all alike without weights."""
    return {name: max(0.0, prior + log(WRONG_VALUES)) for name, prior in priors(answers, settings).items()}


def _of(answer: str, settings: Settings) -> float | None:
    """The weight of an answer's seat, or else of its model."""
    seat = answer.partition("~")[0]
    given = settings.weights or {}
    return given.get(seat, given.get(seat.partition("#")[0]))
