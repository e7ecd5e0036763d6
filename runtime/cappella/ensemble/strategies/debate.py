"""Debate: the members read each other's answers and revise their own until they agree; else the judge writes."""

from cappella.ensemble import agreement
from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.layers import ask_next_round
from cappella.ensemble.strategies.synthesize import write_answer


async def _debate(ctx: RunContext) -> Verdict:
    """The common answer once all answers of a round agree; else the judge's, from the answers of the last round."""
    while await ask_next_round(ctx):
        read = await ctx.reading()
        if agreement.are_equal(ctx.answers, read):
            answer = ctx.judge.return_verbatim(ctx.answers[0])
            return Verdict(answer, answer.name, early_exit="equal", read=read)
    await rank_answers(ctx)
    return await early_exit(ctx) or await write_answer(ctx)


debate = Strategy(_debate, returns_member_answers=True, min_rounds=2)
