"""Synthesize: the judge compares the answers and writes one of its own."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from cappella.background import background
from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.layers import ask_all_rounds
from cappella.errors import EngineError

T = TypeVar("T")


async def _synthesize(ctx: RunContext) -> Verdict:
    await ask_all_rounds(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await write_answer(ctx)


async def write_answer(ctx: RunContext) -> Verdict:
    """The judge's analysis and answer, in the order of the `analysis` setting. Raises EngineError without an answer."""
    match ctx.settings.analysis:
        case "before":
            await _compare(ctx)
            return Verdict(await ctx.judge.write())
        case "alongside":
            return Verdict(await _alongside(_compare(ctx), ctx.judge.write()))
        case "off":
            return Verdict(await ctx.judge.write())


async def _compare(ctx: RunContext) -> None:
    """The judge's analysis; the run goes on without one if it fails."""
    try:
        await ctx.judge.compare()
    except EngineError as error:
        ctx.failure_reason = error.reason


async def _alongside(analysis: Coroutine[Any, Any, None], answer: Coroutine[Any, Any, T]) -> T:
    """Run both at once; if the answer fails, the analysis is cancelled."""
    async with background(analysis) as task:
        result = await answer
        await task
        return result


synthesize = Strategy(_synthesize)
