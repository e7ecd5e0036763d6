"""Asks the panel for all rounds that `layers` sets; from the second on, members see the answers of the one before."""

from cappella.ensemble.context import RunContext


async def ask_all_rounds(ctx: RunContext) -> None:
    """Ask every round, up to the first later one below the quorum. Raises PanelFailed if the first one is."""
    while await ask_next_round(ctx):
        pass


async def ask_next_round(ctx: RunContext) -> bool:
    """Ask one more round; False if none is left, or if one is below the quorum. Raises PanelFailed if the first one is.

    After one below the quorum none is asked, also where the strategy begins again with the next judge.
    """
    is_over = bool(ctx.rounds) and ctx.rounds[-1].answers is not ctx.answers
    return not is_over and len(ctx.rounds) < ctx.max_rounds and await ctx.ask_panel()
