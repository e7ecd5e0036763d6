"""Best of n: a model that was trained to score answers scores each of them, and the best is returned."""

import asyncio
import time
from collections.abc import Awaitable, Mapping
from typing import TypeVar

from cappella.engines.base import Embeddings, Score
from cappella.ensemble import call_counter
from cappella.ensemble.context import RunContext
from cappella.ensemble.fallback import cut_at_stop
from cappella.ensemble.run import Call, Role, Verdict
from cappella.ensemble.together import AT_ONCE
from cappella.errors import EngineContextExceeded, EngineNotReady, EngineOverBudget
from cappella.types import Usage

T = TypeVar("T", Score, Embeddings)


async def best_answer(ctx: RunContext) -> Verdict:
    """The answer with the highest score; of several, that of the first seat, and all are named as `tied`. Raises EngineError.

    Texts that are equal are scored once. One that does not fit into the judge's context beside the conversation has no
    score, and is not chosen while another has one.
    """
    scores = await scores_of(ctx, ctx.settings.judge)
    best = max(score for score in scores.values() if score is not None)
    leaders = [answer for answer in ctx.answers if scores[answer.name] == best]
    tied = [answer.name for answer in leaders] if len(leaders) > 1 else None
    return Verdict(ctx.judge.return_verbatim(leaders[0]), leaders[0].name, scores=scores, tied=tied)


async def scores_of(ctx: RunContext, model: str) -> Mapping[str, float | None]:
    """The score by this model of each answer by its name. Raises EngineError if one of them failed, or none fits."""
    stop = ctx.settings.judge_sampling.stop or ()
    texts = {answer.name: cut_at_stop(answer, stop).content for answer in ctx.answers}
    distinct = list(dict.fromkeys(texts.values()))
    turn = asyncio.Semaphore(AT_ONCE)
    # All end before one failure is raised, so that no call outlives its run.
    found = await asyncio.gather(*(_score(ctx, model, text, turn) for text in distinct), return_exceptions=True)
    failures = [each for each in found if isinstance(each, BaseException)]
    graver = [each for each in failures if not isinstance(each, EngineContextExceeded)]
    if graver or len(failures) == len(found):
        raise (graver or failures)[0]
    by_text = dict(zip(distinct, found, strict=True))
    return {name: each.value if isinstance(each := by_text[text], Score) else None for name, text in texts.items()}


async def _score(ctx: RunContext, model: str, text: str, turn: asyncio.Semaphore) -> Score:
    """The score of one text. Raises EngineError."""
    async with turn:
        return await recorded(ctx, "score", model, ctx.engines[model].score(ctx.judge_prompt, text))


async def recorded(ctx: RunContext, role: Role, model: str, call: Awaitable[T]) -> T:
    """What a call of a model that writes nothing gives; it is recorded however it ends. Raises EngineError."""
    began, usage, was_called = time.monotonic(), Usage(), True
    try:
        result = await call
        usage = result.usage
        return result
    except (EngineNotReady, EngineOverBudget):
        was_called = False
        raise
    finally:
        if was_called:
            made = Call(role, model, usage, began, None, time.monotonic() - began)
            ctx.helper_calls.append(made)
            call_counter.add_call(made)
