"""The calls of one row as they are stored: what identifies a call, and what came of it as JSON."""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import orjson

from cappella.engines.base import Embeddings, Score
from cappella.errors import EngineContextExceeded, EngineRejected
from cappella.threads import MAX_INLINE_CHARS
from cappella.types import Chunk, Json, Prompt, Sampling, ToolCall, Usage

_USAGE = re.compile(rb'"usage"\s{0,9}:\s{0,9}(\{[^{}]{0,4096}(?:\{[^{}]{0,4096}\}[^{}]{0,4096}){0,4}\})')
_END_BYTES = 4 << 10


def key_of(kind: str, model: str, *asked: object) -> bytes:
    """The same for calls that ask the same of a model."""
    return hashlib.sha256(orjson.dumps([kind, model, *asked], option=orjson.OPT_SORT_KEYS)).digest()


def chat_key(model: str, prompt: Prompt, sampling: Sampling) -> bytes:
    """The key of a chat: all that decides over the answer."""
    return key_of("chat", model, replace(prompt, watched=False), sampling.given())


def from_chunks(chunks: Sequence[Chunk]) -> Json:
    """A finished completion: of each sample its thoughts, then the rest, and the usage of all."""
    merged: list[Chunk] = []
    for sample in sorted({chunk.sample for chunk in chunks}):
        of_sample = [chunk for chunk in chunks if chunk.sample == sample]
        if reasoning := "".join(chunk.reasoning for chunk in of_sample):
            merged.append(Chunk(reasoning=reasoning, sample=sample))
        merged.append(_joined(of_sample, sample))
    return {"chunks": [asdict(chunk) for chunk in merged]}


def _joined(chunks: Sequence[Chunk], sample: int) -> Chunk:
    calls: dict[int, ToolCall] = {}
    for piece in (piece for chunk in chunks for piece in chunk.tool_calls):
        calls[piece.index] = calls[piece.index].joined(piece) if piece.index in calls else piece
    return Chunk(
        content="".join(chunk.content for chunk in chunks),
        tool_calls=list(calls.values()),
        logprobs=[each for chunk in chunks for each in chunk.logprobs],
        finish_reason=_last(chunk.finish_reason for chunk in chunks),
        usage=_last(chunk.usage for chunk in chunks),
        sample=sample,
        stop_sequence=_last(chunk.stop_sequence for chunk in chunks),
        tokens_per_step=_last(chunk.tokens_per_step for chunk in chunks),
    )


def _last(values: Any) -> Any:
    return next((value for value in reversed(list(values)) if value is not None), None)


def chunks_of(step: Json) -> list[Chunk]:
    return [_chunk(chunk) for chunk in step["chunks"]]


def _chunk(stored: Json) -> Chunk:
    calls = [ToolCall(**call) for call in stored["tool_calls"]]
    return Chunk(**{**stored, "tool_calls": calls, "usage": stored["usage"] and Usage(**stored["usage"])})


def tokens_of(step: Json) -> int:
    """The tokens that a model wrote."""
    return sum(chunk["usage"]["completion_tokens"] for chunk in step.get("chunks", ()) if chunk["usage"])


def tokens_of_reply(body: bytes) -> int:
    """The same of an engine's own reply in any API; 0 where it does not tell."""
    counts = counts_of_reply(body)
    return counts.get("completion_tokens") or counts.get("output_tokens") or 0


def counts_of_reply(body: bytes, is_pooling: bool = False) -> Mapping[str, int]:
    """The counts of tokens that a reply reports, by their names. A large one of a pooling model is not parsed: it may have 40 MB of numbers."""
    try:
        if is_pooling and len(body) > MAX_INLINE_CHARS:
            usage = _usage_at_an_end(body)
        else:
            usage = orjson.loads(body).get("usage") or {}
        return {name: count for name, count in usage.items() if isinstance(count, int)}
    except (AttributeError, ValueError):
        return {}


def _usage_at_an_end(body: bytes) -> Any:
    """vLLM writes the usage of ranks before their documents, and any other last."""
    found = _USAGE.search(body[:_END_BYTES]) or _USAGE.search(body[-_END_BYTES:])
    return orjson.loads(found[1]) if found else {}


def usages_of(step: Json) -> list[Usage]:
    """The usage that the call reported."""
    found = [chunk["usage"] for chunk in step.get("chunks", ())] + [step.get("usage")]
    return [Usage(**usage) for usage in found if usage]


def from_score(score: Score) -> Json:
    return {"score": score.value, "usage": asdict(score.usage)}


def score_of(step: Json) -> Score:
    return Score(step["score"], Usage(**step["usage"]))


def from_embeddings(found: Embeddings) -> Json:
    return {"vectors": [list(vector) for vector in found.vectors], "usage": asdict(found.usage)}


def embeddings_of(step: Json) -> Embeddings:
    return Embeddings(step["vectors"], Usage(**step["usage"]))


def from_refusal(error: EngineRejected) -> Json:
    """A refusal ends a call, too: it would be refused again."""
    return {
        "refused": str(error),
        "status_code": error.status_code,
        "is_too_long": isinstance(error, EngineContextExceeded),
    }


def require_no_refusal(step: Json) -> None:
    """Raises EngineRejected as the engine did."""
    if "refused" in step:
        kind = EngineContextExceeded if step["is_too_long"] else EngineRejected
        raise kind(step["refused"], step["status_code"])
