"""Attacks through embeddings, ranks and scores: bodies of many inputs and of long ones, and clients that leave."""

import asyncio
from typing import Any

from campaign.case import MARK, MODEL, USER, all_of, case_with, unlike
from campaign.setting import SCORERS
from campaign.target import Target, encoded

EMBED, RERANK, SCORE, CLASSIFY = "/v1/embeddings", "/v1/rerank", "/v1/score", "/classify"
EMBEDDER, SCORER = SCORERS
MANY = 2048
LONG = "word " * 390_000
Bodies = list[tuple[str, dict[str, Any]]]


def embed(texts: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    return EMBED, {"model": EMBEDDER, "input": texts, **more}


def rerank(query: Any, documents: Any, **more: Any) -> tuple[str, dict[str, Any]]:
    return RERANK, {"model": EMBEDDER, "query": query, "documents": documents, **more}


def _refused() -> Bodies:
    """Too many, too long, or no texts at all."""
    wide = [{f"f{number}": 1 for number in range(1000)}] * 100
    return [
        embed(["x"] * (MANY + 1)), embed(LONG), embed([LONG]), embed([[1] * 600_000]), embed([2**70]), embed([-1]),
        embed([[2**40]]), embed([10**9]), embed([]), embed([[]]), embed([["x"]]), embed({"a": 1}), embed([{}] * 2000),
        embed("x", dimensions=2**70), embed("x", dimensions=-1), embed("x", encoding_format=["float"] * 9),
        embed("x", truncate_prompt_tokens=2**70), embed("x", truncate_prompt_tokens=-(2**70)),
        rerank("x" * 1_000_000, ["x"] * 3), rerank("x" * 1000, ["x"] * MANY), rerank("x", ["x"] * (MANY + 1)),
        rerank("x", wide), rerank("x", [["x"]] * 2000), rerank("x", []), rerank("x", ["x"], top_n=-(2**70)),
        (SCORE, {"model": EMBEDDER, "queries": ["x"] * 9, "documents": ["x"] * 8}),
        (SCORE, {"model": EMBEDDER, "queries": ["x" * 1000] * MANY, "documents": ["x"] * MANY}),
        (CLASSIFY, {"model": SCORER, "input": [LONG]}), (CLASSIFY, {"model": SCORER, "input": ["x"] * (MANY + 1)}),
        (CLASSIFY, {"model": SCORER, "messages": [USER] * 3000}), (CLASSIFY, {"model": EMBEDDER, "input": "x"}),
        (EMBED, {"model": MODEL, "input": "x"}), (RERANK, {"model": MODEL, "query": "x", "documents": ["x"]}),
        ("/v1/chat/completions", {"model": EMBEDDER, "messages": [USER]}),
    ]  # fmt: skip


def _served() -> Bodies:
    """As many and as long as may be."""
    word = "room nine of the house "
    return [
        embed([f"{word}{number}" for number in range(MANY)]),
        embed([word * 200] * 400, truncate_prompt_tokens=-1),
        rerank(word, [f"{word}{number}" for number in range(MANY)]),
        (SCORE, {"model": EMBEDDER, "queries": [word] * MANY, "documents": [word] * MANY}),
        (CLASSIFY, {"model": SCORER, "input": [f"{word}{number}" for number in range(MANY)]}),
    ]


@case_with(*SCORERS)
async def inputs_too_many_or_too_long(target: Target) -> str:
    """They are refused before a tokenizer or an engine sees them, and no engine is ill of those that it refuses itself."""
    ready = [(path, await asyncio.to_thread(encoded, body)) for path, body in _refused()]
    replies = [
        reply for _ in range(3) for reply in await asyncio.gather(*(target.post("ann", *each) for each in ready))
    ]
    own = await target.post("root", *embed("The room of Gonil."))
    return all_of(unlike(replies, 400), unlike([own], 200))


@case_with(*SCORERS)
async def as_many_inputs_as_may_be(target: Target) -> str:
    """Large calls leave room for another key's small one, also if their clients leave, and no log has their texts."""
    before = target.rss_mib()
    ready = [(path, await asyncio.to_thread(encoded, body)) for path, body in _served()]
    calls = [asyncio.create_task(target.post("ann", *each, 300)) for each in ready for _ in range(2)]
    await asyncio.sleep(1)
    small = [await target.post("root", *embed(f"Room {number}."), 120) for number in range(4)]
    replies = await asyncio.gather(*calls)
    await asyncio.gather(*(target.post("ann", *each, 0.5) for each in ready for _ in range(4)))
    small += [await target.post("root", *embed(f"Room {number} again."), 30) for number in range(4)]
    marked = [
        embed([MARK]),
        rerank(MARK, [MARK]),
        embed([MARK] * 3000),
        (CLASSIFY, {"model": SCORER, "input": [MARK * 400]}),
    ]
    for each in marked:
        await target.post("ann", *each)
    grown = target.rss_mib() - before
    logs = [path.name for path in target.own_logs() if MARK in path.read_text(errors="replace")]
    late = max(reply.took_s for reply in small)
    return all_of(
        unlike(replies, 200, 429),
        unlike(small, 200),
        late > 20 and f"one small text of another key took {late:.0f} s",
        grown > 250 and f"the gateway grew by {grown:.0f} MiB",
        logs and f"texts stand in {', '.join(sorted(logs))}",
    )
