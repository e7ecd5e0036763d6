"""JSON of a judgement, as clients get it: scores, ranking, preferences, the judge's bias for a place, what is missing."""

from collections.abc import Sequence
from statistics import fmean
from typing import NotRequired

# pydantic does not accept typing.TypedDict before Python 3.12.
from typing_extensions import TypedDict

from cappella.ensemble.judgement import Grade, Judgement, Preference, RankedBy, Shares, Want
from cappella.ensemble.prompts import labels
from cappella.types import Json

DIGITS = 4


class CriterionScore(TypedDict):
    criterion: str
    points: int
    of: int
    reason: str


class AnswerScores(TypedDict):
    """The points of one answer by each criterion, and in all."""

    model: str
    points: int
    of: int
    criteria: list[CriterionScore]


class RankedAnswer(TypedDict):
    """`value`: its share of all points, of the pairs that it won, or its mean probability, as `ranked_by` says."""

    model: str
    rank: int
    value: float


class Order(TypedDict):
    """One choice of two, the `first` of which stood in front; `probability` is that of the first."""

    first: str
    preferred: str | None
    probability: float


class PairPreference(TypedDict):
    """`preferred` is null for a tie: the two orders disagree. `probability` is the mean one of the first of `models`."""

    models: list[str]
    preferred: str | None
    probability: float
    orders: list[Order]


class Place(TypedDict):
    """One letter: how often its answer was chosen, and the mean probability of whatever stood there."""

    letter: str
    chosen: int
    probability: float


class PositionBias(TypedDict):
    """How far places swayed the judge. Each answer stood at each as often, up to eight, so an even judge has even `places`."""

    choices: int
    places: list[Place]
    pairs: NotRequired[int]
    disagreed: NotRequired[int]


class MissingPart(TypedDict):
    part: Want
    models: list[str]
    reason: str
    error: str


class ReadInPart(TypedDict):
    """An answer of which the judge read so many `tokens` for this part, of its own count, without the middle."""

    part: Want
    model: str
    tokens: int
    of: int


class Told(TypedDict):
    """What came of a judgement; what was not asked for is absent."""

    answers: list[str]
    analysis: NotRequired[Json | None]
    scores: NotRequired[list[AnswerScores]]
    ranking: NotRequired[list[RankedAnswer]]
    ranked_by: NotRequired[RankedBy]
    preferences: NotRequired[list[PairPreference]]
    position_bias: NotRequired[PositionBias]
    missing: NotRequired[list[MissingPart]]
    shortened: NotRequired[list[ReadInPart]]


def told(judgement: Judgement) -> Told:
    """The judgement as a reply and a trace have it."""
    task = judgement.task
    out: Told = {"answers": [answer.name for answer in judgement.answers]}
    if "analysis" in task.want:
        out["analysis"] = judgement.analysis
    if "scores" in task.want:
        out["scores"] = [_scores(name, judgement.grades[name]) for name in out["answers"] if name in judgement.grades]
    if task.ranked_by:
        out["ranking"] = [
            {"model": each.name, "rank": each.rank, "value": round(each.value, DIGITS)} for each in judgement.ranking
        ]
        out["ranked_by"] = task.ranked_by
    if "preference" in task.want:
        out["preferences"] = [_preference(each) for each in judgement.preferences]
    if judgement.choices:
        out["position_bias"] = _bias(judgement)
    if judgement.missing:
        out["missing"] = [
            {"part": each.part, "models": list(each.names), "reason": each.reason, "error": each.error}
            for each in judgement.missing
        ]
    if judgement.shortened:
        out["shortened"] = [
            {"part": each.part, "model": read.name, "tokens": read.tokens, "of": read.of}
            for each in judgement.shortened
            for read in (each.shortened,)
        ]
    return out


def _scores(name: str, grades: Sequence[Grade]) -> AnswerScores:
    return {
        "model": name,
        "points": sum(each.points for each in grades),
        "of": sum(each.criterion.points for each in grades),
        "criteria": [
            {
                "criterion": each.criterion.name,
                "points": each.points,
                "of": each.criterion.points,
                "reason": each.reason,
            }
            for each in grades
        ],
    }


def _preference(preference: Preference) -> PairPreference:
    return {
        "models": list(preference.names),
        "preferred": preference.preferred,
        "probability": round(preference.probability, DIGITS),
        "orders": [_order(each) for each in preference.orders],
    }


def _order(choice: Shares) -> Order:
    first = next(iter(choice.by_name))
    return {"first": first, "preferred": choice.preferred, "probability": round(choice.by_name[first], DIGITS)}


def _bias(judgement: Judgement) -> PositionBias:
    choices = judgement.choices
    # All choices of a judgement are among as many answers.
    places = list(zip(*(each.by_name.values() for each in choices), strict=True))
    chosen = [list(each.by_name).index(each.preferred) for each in choices if each.preferred is not None]
    out: PositionBias = {
        "choices": len(choices),
        "places": [
            {"letter": letter, "chosen": chosen.count(i), "probability": round(fmean(places[i]), DIGITS)}
            for i, letter in enumerate(labels(len(places)))
        ],
    }
    if judgement.preferences:
        out["pairs"] = len(judgement.preferences)
        out["disagreed"] = sum(each.orders[0].preferred != each.orders[1].preferred for each in judgement.preferences)
    return out
