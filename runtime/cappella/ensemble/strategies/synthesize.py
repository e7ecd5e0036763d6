"""The judge compares the answers and writes one of its own."""

from collections.abc import Coroutine
from typing import Any, TypeVar

from cappella.background import background
from cappella.ensemble.context import RunContext, Strategy
from cappella.ensemble.early_exit import early_exit
from cappella.ensemble.judge import Judge
from cappella.ensemble.review import rank_answers
from cappella.ensemble.run import Verdict
from cappella.ensemble.strategies.layers import ask_layers

T = TypeVar("T")


async def _synthesize(ctx: RunContext) -> Verdict:
    await ask_layers(ctx)
    await rank_answers(ctx)
    return await early_exit(ctx) or await written(ctx.judge)


async def written(judge: Judge) -> Verdict:
    """Analysis and answer in the order that the settings say. Raises EngineError if there is no answer."""
    match judge.settings.analysis:
        case "before":
            await judge.compare()
            return Verdict(await judge.write())
        case "alongside":
            return Verdict(await _both(judge.compare(), judge.write()))
        case "off":
            return Verdict(await judge.write())


async def _both(aside: Coroutine[Any, Any, None], main: Coroutine[Any, Any, T]) -> T:
    """Run the two at once; if `main` fails, `aside` is not waited for."""
    async with background(aside) as task:
        result = await main
        await task
        return result


synthesize = Strategy(_synthesize, judge_writes=True)
