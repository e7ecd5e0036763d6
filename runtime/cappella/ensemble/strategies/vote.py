"""The answer, or the value of each field, that most members gave; a tie goes to the judge."""

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
from cappella.ensemble.strategies.layers import ask_layers
from cappella.ensemble.structured import formats


async def _vote(ctx: RunContext) -> Verdict:
    await ask_layers(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await _counted(ctx.judge)


async def _counted(judge: Judge) -> Verdict:
    """Field by field if every answer is a JSON object, else whole answers. Raises EngineError if a tie stays one."""
    objects = [agreement.as_object(answer) for answer in judge.answers]
    found = [each for each in objects if each is not None]
    group_by_meaning = agreement.group_by_meaning(judge.answers)
    votes = {camp[0].name: [answer.name for answer in camp] for camp in group_by_meaning}
    if len(group_by_meaning) > 1 and len(found) == len(objects) and (verdict := await _by_field(judge, found)):
        return replace(verdict, votes=votes)
    most_common = [camp[0] for camp in group_by_meaning if len(camp) == len(group_by_meaning[0])]
    if len(most_common) == 1:
        return Verdict(judge.hand_on(most_common[0]), most_common[0].name, votes=votes)
    answer, probabilities = await judge.choose(most_common)
    return Verdict(judge.hand_on(answer), answer.name, probabilities, votes)


async def _by_field(judge: Judge, objects: Sequence[Mapping[str, Any]]) -> Verdict | None:
    """Each field that most objects have, with the value that most of those give; where two lead, the judge's choice.

    None if the fields together do not have the caller's form.
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
    merged = {name: _settle(values, preferred.get(name)) for name, values in leading.items()}
    content = json.dumps(merged, ensure_ascii=False)
    if await formats.problem(judge.form, content):
        return None
    same = next((a for a, each in zip(judge.answers, objects, strict=True) if each == merged), None)
    if same is not None:
        return Verdict(judge.hand_on(same), same.name, probabilities)
    # Put together from several answers, it is nobody's: no log-probabilities, no reasoning.
    joined = Answer(judge.settings.judge, content, "stop", chosen.call)
    return Verdict(judge.hand_on(joined), None, probabilities)


def _settle(values: Sequence[Any], preferred: Any) -> Any:
    """The one leading value; of several the judge's, if it is among them."""
    same = [value for value in values if agreement.canonical(value) == agreement.canonical(preferred)]
    return same[0] if same else values[0]


vote = Strategy(_vote, returns_member_answers=True, needs_judge=False)
