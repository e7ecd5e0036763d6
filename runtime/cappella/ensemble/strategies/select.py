"""Select: the judge chooses one answer, or scores each, and the best is returned verbatim."""

from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.scoring import best_answer
from cappella.ensemble.strategies.layers import ask_all_rounds


async def _select(ctx: RunContext) -> Verdict:
    await ask_all_rounds(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await _judge_chooses(ctx)


async def _judge_chooses(ctx: RunContext) -> Verdict:
    """The judge's choice: one constrained letter, and a probability for each answer; or a score for each. Raises EngineError."""
    if len(ctx.answers) == 1:
        return Verdict(ctx.judge.return_verbatim(ctx.answers[0]), ctx.answers[0].name)
    if not ctx.judge_engine.capabilities.writes:
        return await best_answer(ctx)
    answer, probabilities = await ctx.judge.choose(ctx.answers)
    return Verdict(ctx.judge.return_verbatim(answer), answer.name, probabilities)


select = Strategy(_select, returns_member_answers=True)
