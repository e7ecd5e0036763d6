"""Vote: the value, or that of each JSON field, that most members gave. The judge decides a tie."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from cappella.ensemble import agreement
from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.judge import Judge
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Answer, Verdict
from cappella.ensemble.same import grouped
from cappella.ensemble.strategies.layers import ask_all_rounds
from cappella.ensemble.structured import formats
from cappella.ensemble.weights import votes as votes_of
from cappella.extraction.spelling import canonical

CLOSE_VOTES = 1.0
"""In log-odds: weights that differ by less decide nothing that the judge could not decide better."""
MERGED = "a vote"
"""The name of an answer that is put together of the fields of several."""


async def _vote(ctx: RunContext) -> Verdict:
    await ask_all_rounds(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await _count_votes(ctx)


async def _count_votes(ctx: RunContext) -> Verdict:
    """Vote by field if every answer is a JSON object, else on the values of answers. Raises EngineError if the judge fails."""
    groups = agreement.groups(ctx.answers, await grouped(ctx))
    read, judge = await ctx.reading(), ctx.judge
    votes = {group[0].name: [answer.name for answer in group] for group in groups}
    objects = [agreement.as_object(answer) for answer in judge.answers]
    parsed = [each for each in objects if each is not None]
    if len(groups) > 1 and len(parsed) == len(objects) and (verdict := await _by_field(judge, parsed)):
        return replace(verdict, votes=votes)
    leaders = _leaders(ctx, groups) or list(judge.answers)
    if len(leaders) == 1:
        return Verdict(judge.return_verbatim(leaders[0]), leaders[0].name, votes=votes, read=read)
    answer, probabilities = await judge.choose(leaders)
    return Verdict(judge.return_verbatim(answer), answer.name, probabilities, votes, read=read)


def _leaders(ctx: RunContext, groups: Sequence[Sequence[Answer]]) -> list[Answer]:
    """An answer of each group with the most votes, each vote with its member's weight, and of those that come close by weight."""
    weights = votes_of(ctx.judge.answers, ctx.settings)
    sums = [round(sum(weights[answer.name] for answer in group), 6) for group in groups]
    lead = CLOSE_VOTES if ctx.settings.weights else 0.0
    return [
        max(group, key=lambda answer: weights[answer.name])
        for group, each in zip(groups, sums, strict=True)
        if each >= max(sums) - lead
    ]


async def _by_field(judge: Judge, objects: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """An object of the fields that most answers have, each with its most common value; the judge breaks ties.

    None if that object violates the caller's output format.
    """
    names = [name for name in dict.fromkeys(name for each in objects for name in each)
             if 2 * sum(name in each for each in objects) > len(objects)]  # fmt: skip
    leading = {name: agreement.most_common([each[name] for each in objects if name in each]) for name in names}
    preferred: Mapping[str, Any] = objects[0]
    chosen: Answer = judge.answers[0]
    probabilities = None
    if any(len(values) > 1 for values in leading.values()):
        chosen, probabilities = await judge.choose(judge.answers)
        preferred = objects[list(judge.answers).index(chosen)]
    merged = {name: _prefer(values, preferred.get(name)) for name, values in leading.items()}
    content = json.dumps(merged, ensure_ascii=False)
    if await formats.violation(judge.output_format, content):
        return None
    same = next((a for a, each in zip(judge.answers, objects, strict=True) if each == merged), None)
    if same is not None:
        return Verdict(judge.return_verbatim(same), same.name, probabilities)
    # Merged from several answers, so no member's log-probabilities or reasoning belong to it.
    joined = Answer(MERGED, content, "stop", chosen.call)
    authors = [a.name for a, each in zip(judge.answers, objects, strict=True) if _share_a_field(each, merged)]
    return Verdict(judge.return_verbatim(joined), None, probabilities, merged=authors)


def _share_a_field(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return any(name in one and canonical(one[name]) == canonical(value) for name, value in other.items())


def _prefer(values: Sequence[Any], preferred: Any) -> Any:
    """The leading value; in a tie the preferred one, if it is among them."""
    same = [value for value in values if canonical(value) == canonical(preferred)]
    return same[0] if same else values[0]


vote = Strategy(_vote, returns_member_answers=True)
