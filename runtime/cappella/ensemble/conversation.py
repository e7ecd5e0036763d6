"""The size of the caller's conversation in tokens of the judge's model, counted beside the run."""

import asyncio
from collections.abc import Sequence

from cappella.config.options import Settings
from cappella.engines.base import Engine
from cappella.ensemble.messages import has_images
from cappella.ensemble.run import Panel
from cappella.types import Prompt


async def count(engine: Engine, prompt: Prompt) -> int | None:
    """The tokens of the prompt by the engine's own tokenizer; None where it only estimates. Raises EngineError.

    None also with images, which a tokenizer does not count, and for an engine that would have to wake for it. One more
    request for each run costs the engine some milliseconds of its tokenizer.
    """
    if engine.status.state != "ready" or has_images(prompt.messages):
        return None
    size = await engine.count_tokens(prompt)
    return size.tokens if size.exact else None


def tokens(counted: "asyncio.Future[int | None]", settings: Settings, rounds: Sequence[Panel]) -> int:
    """What `count` found, if it has ended well; else what the first round's members read.

    Of them, the judge's own model has the word, else whoever counted most.
    """
    if counted.done() and not counted.cancelled() and counted.exception() is None and (found := counted.result()):
        return found
    models = {seat.name: seat.model for seat in settings.panel}
    read = [(models[call.seat], call.usage.prompt_tokens) for panel in rounds[:1] for call in panel.calls]
    own = [size for model, size in read if model == settings.judge]
    return max(own, default=0) or max((size for _, size in read), default=0)
