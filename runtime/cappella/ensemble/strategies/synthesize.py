"""Synthesize: the judge compares the answers and writes one of its own."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from cappella.background import background
from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.judge import Judge
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.layers import ask_all_rounds

T = TypeVar("T")


async def _synthesize(ctx: RunContext) -> Verdict:
    await ask_all_rounds(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await write_answer(ctx.judge)


async def write_answer(judge: Judge) -> Verdict:
    """The judge's analysis and answer, in the order of the `analysis` setting. Raises EngineError without an answer."""
    match judge.settings.analysis:
        case "before":
            await judge.compare()
            return Verdict(await judge.write())
        case "alongside":
            return Verdict(await _alongside(judge.compare(), judge.write()))
        case "off":
            return Verdict(await judge.write())


async def _alongside(analysis: Coroutine[Any, Any, None], answer: Coroutine[Any, Any, T]) -> T:
    """Run both at once; if the answer fails, the analysis is cancelled."""
    async with background(analysis) as task:
        result = await answer
        await task
        return result


synthesize = Strategy(_synthesize)
