"""Weighs answers by evidence that adds up in log-odds: the judge, agreement, certainty, a reward model, members' weights."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log
from statistics import fmean

from cappella.ensemble.agreement import work
from cappella.ensemble.context import RunContext
from cappella.ensemble.fallback import AGREEMENT_WEIGHT, overlap
from cappella.ensemble.run import Answer, Verdict
from cappella.ensemble.same import grouped
from cappella.ensemble.scoring import scores_of
from cappella.ensemble.weights import priors, votes
from cappella.errors import EngineError
from cappella.extraction.extractors import Reading
from cappella.threads import off_loop_if_large
from cappella.vocabulary import Evidence

LEAST_PROBABILITY = 1e-9
ONE_VALUE = ("number", "choice", "boxed", "json", "regex")
"""Extractors whose values say all: answers of two of them have nothing in common, whatever their words."""

Parts = Mapping[Evidence, Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Weighed:
    """The name of the best answer, by how much it leads, and whether the prior had to decide."""

    best: str
    margin: float
    is_close: bool


async def select_by_evidence(ctx: RunContext) -> Verdict:
    """The answer for which most speaks. Raises EngineError if the judge fails."""
    chosen_by, probabilities = ctx.settings.select.by, None
    # Before the choice: where the judge breaks as it groups, the next one does both.
    parts = await other_parts(ctx)
    if "judge" in chosen_by:
        _, probabilities = await ctx.judge.choose(ctx.answers)
        parts["judge"] = log_odds(probabilities)
    if "reward" in chosen_by and ctx.settings.select.reward:
        parts |= await _reward(ctx, ctx.settings.select.reward)
    if (pair := _close_pair(ctx, parts)) and "judge" in chosen_by:
        _, between = await ctx.judge.choose(pair)
        parts["judge"] = {**parts["judge"], **_shared(parts["judge"], log_odds(between))}
    weighed = weigh(ctx.answers, parts, ctx.settings.select.margin, chosen_by)
    answer = next(each for each in ctx.answers if each.name == weighed.best)
    return Verdict(
        ctx.judge.return_verbatim(answer),
        answer.name,
        probabilities,
        evidence={part: parts[part] for part in chosen_by if part in parts},
        margin=weighed.margin,
        confidence="low" if weighed.is_close else None,
    )


async def _reward(ctx: RunContext, model: str) -> Parts:
    """The scores by a reward model; nothing if it fails, since the other evidence is there and the judge is not to blame."""
    try:
        return {"reward": known(await scores_of(ctx, model))}
    except EngineError as error:
        ctx.failure_reason = error.reason
        return {}


async def other_parts(ctx: RunContext) -> dict[Evidence, Mapping[str, float]]:
    """The evidence beside the judge's and the scores. Agreement and weights are always there: as the prior, if not as parts."""
    answers, settings, read = ctx.answers, ctx.settings, await grouped(ctx)
    found: dict[Evidence, Mapping[str, float]] = {
        "agreement": await off_loop_if_large(
            work(answers), agreement, answers, votes(answers, settings), read, _is_grouped(ctx)
        )
    }
    if settings.weights:
        found["weights"] = priors(answers, settings)
    if "certainty" in settings.select.by:
        found["certainty"] = known({answer.name: answer.certainty for answer in answers})
    return found


def _is_grouped(ctx: RunContext) -> bool:
    """Whether somebody said which texts say the same; where that failed, words are compared."""
    return ctx.grouped is not None and ctx.grouped.by != "words"


def agreement(
    answers: Sequence[Answer], votes: Mapping[str, float], read: Reading, is_grouped: bool = False
) -> Mapping[str, float]:
    """How far the others say the same, by their weights: by value where answers have one or are grouped, else by their words."""
    weights = [votes[answer.name] for answer in answers]
    if read.extractor not in ONE_VALUE and not is_grouped:
        shares = overlap(answers, weights)
        return {answer.name: AGREEMENT_WEIGHT * share for answer, share in zip(answers, shares, strict=True)}
    total = sum(weights)
    out = {}
    for answer in answers:
        value, others = read.values.get(answer.name), total - votes[answer.name]
        same = [votes[each.name] for each in answers if each is not answer and read.values.get(each.name) == value]
        out[answer.name] = 0.0 if value is None else AGREEMENT_WEIGHT * sum(same) / (others or 1.0)
    return out


def weigh(answers: Sequence[Answer], parts: Parts, margin: float, by: Sequence[Evidence]) -> Weighed:
    """By the sum of the parts that are named; where it leads by less than the margin the prior decides, if it can."""
    names = [answer.name for answer in answers]
    sums = {name: sum(each[name] for part, each in parts.items() if part in by) for name in names}
    first, *others = sorted(names, key=lambda name: -sums[name])
    lead = sums[first] - sums[others[0]] if others else 0.0
    if not others or lead >= margin:
        return Weighed(first, lead, False)
    prior = parts.get("weights") or parts.get("agreement") or {}
    return Weighed(max(names, key=lambda name: (prior.get(name, 0.0), sums[name])), lead, True)


def log_odds(probabilities: Mapping[str, float]) -> dict[str, float]:
    return {name: log(max(share, LEAST_PROBABILITY)) for name, share in probabilities.items()}


def known(values: Mapping[str, float | None]) -> dict[str, float]:
    """The values, with the mean of those that there are for one that is not known."""
    there = [value for value in values.values() if value is not None]
    usual = fmean(there) if there else 0.0
    return {name: usual if value is None else value for name, value in values.items()}


def _close_pair(ctx: RunContext, parts: Parts) -> list[Answer] | None:
    """The two best of several answers where they are too close, for the judge to compare with `debias`."""
    select = ctx.settings.select
    if (
        not ctx.settings.debias
        or len(ctx.answers) < 3
        or not weigh(ctx.answers, parts, select.margin, select.by).is_close
    ):
        return None
    sums = {answer.name: sum(parts[part][answer.name] for part in select.by if part in parts) for answer in ctx.answers}
    return sorted(ctx.answers, key=lambda answer: -sums[answer.name])[:2]


def _shared(all_odds: Mapping[str, float], pair: Mapping[str, float]) -> dict[str, float]:
    """The pair's odds on the level of the odds among all."""
    level = fmean(all_odds[name] for name in pair) - fmean(pair.values())
    return {name: level + odds for name, odds in pair.items()}
