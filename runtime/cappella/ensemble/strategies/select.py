"""Select: the judge chooses one answer, which is returned verbatim."""

from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.layers import ask_all_rounds


async def _select(ctx: RunContext) -> Verdict:
    await ask_all_rounds(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await _judge_chooses(ctx)


async def _judge_chooses(ctx: RunContext) -> Verdict:
    """The judge's choice: one constrained letter, and a probability for each answer. Raises EngineError."""
    if len(ctx.answers) == 1:
        return Verdict(ctx.judge.return_verbatim(ctx.answers[0]), ctx.answers[0].name)
    answer, probabilities = await ctx.judge.choose(ctx.answers)
    return Verdict(ctx.judge.return_verbatim(answer), answer.name, probabilities)


select = Strategy(_select, returns_member_answers=True)
