"""Select: the answer for which most speaks is returned verbatim: by the judge, agreement, certainty, scores, weights."""

from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.scoring import best_answer
from cappella.ensemble.selection import select_by_evidence
from cappella.ensemble.strategies.layers import ask_all_rounds


async def _select(ctx: RunContext) -> Verdict:
    await ask_all_rounds(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await _choose(ctx)


async def _choose(ctx: RunContext) -> Verdict:
    """By the scores of a judge that scores, where it counts; else by all evidence that the settings name. Raises EngineError."""
    if len(ctx.answers) == 1:
        return Verdict(ctx.judge.return_verbatim(ctx.answers[0]), ctx.answers[0].name)
    if ctx.settings.needs_judge and not ctx.judge_engine.capabilities.writes:
        return await best_answer(ctx)
    return await select_by_evidence(ctx)


select = Strategy(_select, returns_member_answers=True)
