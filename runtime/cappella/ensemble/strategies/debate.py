"""The members read each other's answers and revise their own until they agree; the judge settles what is left."""

from cappella.ensemble import agreement
from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.synthesize import written


async def _debate(ctx: RunContext) -> Verdict:
    """The answer on which all agree after a round, however few; else the judge writes one from those of the last."""
    while len(ctx.rounds) < ctx.max_rounds and await ctx.ask_panel():
        if agreement.are_equal(ctx.answers):
            return Verdict(ctx.judge.hand_on(ctx.answers[0]), ctx.answers[0].name, early_exit="equal")
    await rank_answers(ctx)
    return await early_exit(ctx) or await written(ctx.judge)


debate = Strategy(_debate, returns_member_answers=True, judge_writes=True, min_rounds=2)
