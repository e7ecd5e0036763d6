"""The judge picks one answer, which is returned as it is."""

from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.layers import ask_layers


async def _select(ctx: RunContext) -> Verdict:
    await ask_layers(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await _chosen(ctx)


async def _chosen(ctx: RunContext) -> Verdict:
    """By one constrained token, with a probability for each answer. Raises EngineError if the judge does not choose."""
    if len(ctx.answers) == 1:
        return Verdict(ctx.judge.hand_on(ctx.answers[0]), ctx.answers[0].name)
    answer, probabilities = await ctx.judge.choose(ctx.answers)
    return Verdict(ctx.judge.hand_on(answer), answer.name, probabilities)


select = Strategy(_select, returns_member_answers=True)
