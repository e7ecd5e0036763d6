"""An end without a verdict to find: all members gave the same answer."""

import asyncio

from cappella.ensemble import agreement
from cappella.ensemble.context import RunContext
from cappella.ensemble.gate import SHORTCUT_SHARE
from cappella.ensemble.run import Verdict
from cappella.errors import EngineError


async def early_exit(ctx: RunContext) -> Verdict | None:
    """The answer that all gave, if the settings let that be enough: equal ones, or the same in the judge's eyes."""
    mode = ctx.settings.early_exit
    if mode == "off" or len(ctx.answers) < 2:
        return None
    if agreement.are_equal(ctx.answers):
        return Verdict(ctx.judge.hand_on(ctx.answers[0]), ctx.answers[0].name, early_exit="equal")
    if mode == "equal" or not await _judge_sees_agreement(ctx):
        return None
    return Verdict(ctx.judge.hand_on(ctx.answers[0]), ctx.answers[0].name, early_exit="judge")


async def _judge_sees_agreement(ctx: RunContext) -> bool:
    """A judge that does not say so in time has seen none: what saves work cannot cost the verdict."""
    try:
        async with asyncio.timeout(SHORTCUT_SHARE * ctx.left_s):
            return await ctx.judge.sees_agreement()
    except (EngineError, TimeoutError):
        return False
