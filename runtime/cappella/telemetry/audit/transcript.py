"""Extracts the answer from a forwarded reply of any API, for the audit log."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cappella import sse

_ANSWER_FIELDS = ("choices", "output", "content")
"""The field of a complete reply that holds the answer: OpenAI's two APIs, then Anthropic's."""


def answer(reply: bytes) -> Any:
    """The answer objects of a complete reply, or the joined text of each answer of a stream."""
    try:
        return _answer(reply)
    except (AttributeError, KeyError, TypeError, ValueError):
        # A server of somebody else's may say anything; the line is kept.
        return None


def _answer(reply: bytes) -> Any:
    events = sse.events(reply)
    if not events:
        body = _parse(reply)
        return next((body[name] for name in _ANSWER_FIELDS if name in body), _scores(body))
    texts: dict[int, str] = {}
    for index, text in (piece for event in events for piece in _pieces(_parse(event))):
        texts[index] = texts.get(index, "") + text
    return [texts[index] for index in sorted(texts)]


def _scores(body: Mapping[str, Any]) -> Any:
    """The scores of a reranker or a reward model, in order; embeddings say nothing to a reader, and are left out."""
    if isinstance(results := body.get("results"), list):
        return [{name: each.get(name) for name in ("index", "relevance_score")} for each in results]
    data = body.get("data")
    entries = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    return [each.get("score", each.get("probs")) for each in entries if {"score", "probs"} & each.keys()] or None


def _pieces(event: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """Yield (index of the answer, text) for each text in one event."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or choice
        calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
        texts = [delta.get("content"), delta.get("text"), *(call.get(part) for call in calls for part in _CALL)]
        yield from ((choice.get("index", 0), text) for text in texts if text)
    delta = event.get("delta")
    if isinstance(delta, str) and "reasoning" not in event.get("type", ""):
        yield event.get("output_index", 0), delta
    elif isinstance(delta, dict) and (text := delta.get("text") or delta.get("partial_json")):
        yield event.get("index", 0), text


_CALL = ("name", "arguments")


def _parse(data: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
