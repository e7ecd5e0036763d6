"""The size of the caller's conversation in tokens of the judge's model, counted beside the run."""

import asyncio
from collections.abc import Sequence

from cappella.config.options import Settings
from cappella.ensemble.context import RunContext
from cappella.ensemble.messages import has_images
from cappella.ensemble.run import Panel


async def count(ctx: RunContext) -> int | None:
    """The tokens of the judge's prompt by its own tokenizer; None where it only estimates. Raises EngineError.

    None also with images, which a tokenizer does not count, for a judge that would have to wake for it, and for one that the
    run does not ask. One more request for each run costs the engine some milliseconds of its tokenizer.
    """
    engine, prompt = ctx.judge_engine, ctx.judge_prompt
    if not ctx.settings.may_ask_judge or engine.status.state != "ready" or has_images(prompt.messages):
        return None
    size = await engine.count_tokens(prompt)
    return size.tokens if size.exact else None


def tokens(counted: "asyncio.Future[int | None]", settings: Settings, rounds: Sequence[Panel]) -> int:
    """What `count` found, if it has ended well; else what its members read in their first calls.

    Of them, the judge's own model has the word, else whoever counted most.
    """
    if counted.done() and not counted.cancelled() and counted.exception() is None and (found := counted.result()):
        return found
    models = {seat.name: seat.model for seat in settings.panel}
    calls = sorted((call for panel in rounds[:1] for call in panel.calls), key=lambda call: call.began_at, reverse=True)
    # Later calls of a seat have read what its tools gave, too.
    first = {call.seat: call for call in calls}
    read = [(models[seat], call.usage.prompt_tokens) for seat, call in first.items()]
    own = [size for model, size in read if model == settings.judge]
    return max(own, default=0) or max((size for _, size in read), default=0)
