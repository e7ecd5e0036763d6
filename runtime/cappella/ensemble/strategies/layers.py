"""Asks the panel for all rounds that `layers` sets; from the second on, members see the answers of the one before."""

from cappella.ensemble.context import RunContext


async def ask_all_rounds(ctx: RunContext) -> None:
    """Ask every round, up to the first later one below the quorum. Raises PanelFailed if the first one is."""
    while len(ctx.rounds) < ctx.max_rounds and await ctx.ask_panel():
        pass
