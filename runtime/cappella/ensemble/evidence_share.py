"""Fits the passages behind the answers into their share of the judge's context, as the judge's own tokenizer counts them."""

import sys
from collections.abc import Sequence
from dataclasses import replace

from cappella.engines.base import Engine
from cappella.engines.context_size import BYTES_PER_TOKEN
from cappella.ensemble.candidates import Candidates
from cappella.ensemble.evidence import Backing, evidence
from cappella.ensemble.fair_share import fair_share
from cappella.ensemble.shares import MAX_COUNTS, SAFETY, Counter, counted

SHARE = 0.25
"""Of the judge's context, and of the tokens that are left of a limited run, what passages may take."""
UNKNOWN_CONTEXT_TOKENS = 32_768
MIN_PASSAGE_TOKENS = 64
"""With less of each nobody could read them: rather some are left out."""
LESS = 4


def share(context_tokens: int | None, remaining_tokens: int | None) -> int:
    """The tokens of all passages; a run with so many `remaining_tokens` reads them twice, to compare and to write."""
    context = context_tokens or UNKNOWN_CONTEXT_TOKENS
    return int(SHARE * (context if remaining_tokens is None else min(context, max(remaining_tokens, 0) // 2)))


async def with_evidence(candidates: Candidates, reader: Engine, room_tokens: int) -> Candidates:
    """The candidates, with their passages shortened to this room, and some left out where they are too many."""
    # No text has more tokens than bytes.
    if sum(len(text.encode()) for text in _texts(candidates)) <= room_tokens:
        return candidates
    most = max(1, room_tokens // MIN_PASSAGE_TOKENS)
    candidates = replace(candidates, backings=_first(candidates.backings, most))
    return await counted(reader, lambda counter: _fitted(candidates, counter, room_tokens))


def with_less_evidence(candidates: Candidates) -> Candidates:
    """The candidates with much less of each passage: the engine has refused the prompt as too long."""
    if not candidates.backings:
        return candidates
    longest = max(each.size_bytes for each in candidates.backings)
    most = longest if candidates.passage_bytes is None else candidates.passage_bytes
    return replace(candidates, passage_bytes=min(longest, most) // LESS)


def is_much(candidates: Candidates) -> bool:
    """Whether less evidence makes a prompt shorter by more than a few words."""
    now, then = (
        sum(min(each.size_bytes, sys.maxsize if most is None else most) for each in candidates.backings)
        for most in (candidates.passage_bytes, with_less_evidence(candidates).passage_bytes)
    )
    return now - then >= MIN_PASSAGE_TOKENS * BYTES_PER_TOKEN


async def _fitted(candidates: Candidates, counter: Counter, room_tokens: int) -> Candidates:
    """Raises EngineError."""
    sizes = [each.size_bytes for each in candidates.backings]
    room_bytes = sum(sizes)
    for _ in range(MAX_COUNTS):
        tokens = sum([await counter.text(text) for text in _texts(candidates)])
        if tokens <= room_tokens:
            return candidates
        room_bytes = int(room_bytes * SAFETY * room_tokens / tokens)
        candidates = replace(candidates, passage_bytes=fair_share(sizes, room_bytes))
    return candidates


def _texts(candidates: Candidates) -> Sequence[str]:
    return evidence(candidates.backings, candidates.labels, candidates.nonce, candidates.passage_bytes)


def _first(found: Sequence[Backing], most: int) -> Sequence[Backing]:
    """The `most` that matter most, in their order: those that are cited, then those that more members found."""
    ranked = sorted(found, key=lambda each: (not each.cited_by, -len(each.found_by)))[:most]
    return [each for each in found if each in ranked]
