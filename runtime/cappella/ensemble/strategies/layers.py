"""Several rounds before the judge: in each after the first, the members read the answers of the one before."""

from cappella.ensemble.context import RunContext


async def ask_layers(ctx: RunContext) -> None:
    """As many rounds as the settings have `layers`; a later one below the quorum is the last."""
    while len(ctx.rounds) < ctx.max_rounds and await ctx.ask_panel():
        pass
