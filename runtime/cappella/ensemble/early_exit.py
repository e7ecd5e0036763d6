"""Skips the judge's work when all members gave the same answer."""

import asyncio

from cappella.ensemble import agreement
from cappella.ensemble.context import RunContext
from cappella.ensemble.gate import SHORTCUT_SHARE
from cappella.ensemble.run import Verdict
from cappella.errors import EngineError


async def early_exit(ctx: RunContext) -> Verdict | None:
    """The common answer if the members agree, as far as `early_exit` allows; None if the judge has to decide.

    `equal` compares the values that are read in the answers, `judge` also asks the judge whether answers in other words say the same.
    """
    mode = ctx.settings.early_exit
    if mode == "off" or len(ctx.answers) < 2:
        return None
    read = await ctx.reading()
    if agreement.are_equal(ctx.answers, read):
        return Verdict(ctx.judge.return_verbatim(ctx.answers[0]), ctx.answers[0].name, early_exit="equal", read=read)
    if mode == "equal" or not await _judge_confirms_agreement(ctx):
        return None
    return Verdict(ctx.judge.return_verbatim(ctx.answers[0]), ctx.answers[0].name, early_exit="judge")


async def _judge_confirms_agreement(ctx: RunContext) -> bool:
    """False if the judge fails or is slow: a check that only saves work must not cost the verdict."""
    try:
        async with asyncio.timeout(SHORTCUT_SHARE * ctx.deadline.remaining_s):
            return await ctx.judge.confirms_agreement()
    except (EngineError, TimeoutError):
        return False
