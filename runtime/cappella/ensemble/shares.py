"""Shares of a reader's context: an answer that is longer than its share is cut, so that it shuts out neither others nor the reader."""

import asyncio
from collections.abc import Mapping, Sequence

from cappella.engines.base import Engine
from cappella.ensemble import prompts
from cappella.ensemble.candidates import Candidates
from cappella.errors import EngineError
from cappella.types import Prompt

MAX_REPLY_SHARE = 0.5
"""The share of a context that is kept free for the reply, at most."""
DEFAULT_REPLY_SHARE = 0.25
NOTES_TOKENS = 512
"""Room for our own marks and notes, a ranking included."""
SAFETY = 0.95
MAX_COUNTS = 6
COUNT_TIMEOUT_S = 5.0
_SHORT = Prompt([{"role": "user", "content": "."}])


async def cut_to_share(candidates: Candidates, prompt: Prompt, reader: Engine, reply_tokens: int | None) -> Candidates:
    """The candidates, cut where they do not fit into the reader's context beside the prompt and a reply.

    Unchanged if they fit, if the context is unknown, if the prompt alone leaves no room, or if nobody can count tokens.
    """
    context_tokens, texts = reader.capabilities.context_tokens, candidates.texts
    if context_tokens is None:
        return candidates
    wanted = context_tokens * DEFAULT_REPLY_SHARE if reply_tokens is None else reply_tokens
    room = context_tokens - int(min(wanted, context_tokens * MAX_REPLY_SHARE)) - NOTES_TOKENS
    # No text has more tokens than bytes.
    if sum(len(text.encode()) for text in (*texts, *map(prompts.text_of, prompt.messages))) <= room:
        return candidates
    try:
        if reader.status.state == "asleep":
            await reader.count_tokens(_SHORT)  # Its wake is no part of the time that counting may take.
        async with asyncio.timeout(COUNT_TIMEOUT_S):
            return candidates.cut(await _cuts(candidates, prompt, reader, room))
    except (EngineError, TimeoutError):
        return candidates


async def _cuts(candidates: Candidates, prompt: Prompt, reader: Engine, room: int) -> Mapping[str, int]:
    """The characters that are left of each answer that is too long. Raises EngineError."""
    texts = candidates.texts
    asked = (await reader.count_tokens(Prompt(prompt.messages, prompt.tools))).tokens
    sizes = await asyncio.gather(*(_count(reader, text) for text in texts))
    limit = _share(sizes, room - asked)
    if limit <= 0:
        return {}
    kept = await asyncio.gather(*(_kept(reader, *each, limit) for each in zip(texts, sizes, strict=True)))
    pairs = zip(candidates.answers, kept, strict=True)
    return {answer.name: characters for answer, characters in pairs if characters is not None}


def _share(sizes: Sequence[int], room: int) -> int:
    """The most tokens that each answer may have, so that all fit: what short ones leave goes to the long ones."""
    left, limit = room, 0
    for place, size in enumerate(sorted(sizes)):
        limit = left // (len(sizes) - place)
        if size > limit:
            return limit
        left -= size
    return max(sizes, default=limit)


async def _kept(reader: Engine, text: str, tokens: int, limit: int) -> int | None:
    """How many characters of the text have at most `limit` tokens; None for all."""
    if tokens <= limit:
        return None
    characters = len(text)
    for _ in range(MAX_COUNTS):
        if tokens <= limit:
            return characters
        # The beginning of a text may have more tokens than its length tells.
        characters = int(characters * SAFETY * limit / max(tokens, 1))
        tokens = await _count(reader, text[:characters])
    return characters if tokens <= limit else 0


async def _count(reader: Engine, text: str) -> int:
    return (await reader.count_tokens(Prompt([{"role": "user", "content": text}]))).tokens
