"""What a model said in its own reply, whichever API it came by: for the audit log."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cappella import sse

_SAID = ("choices", "output", "content")
"""Where a whole reply has what was said: OpenAI's two APIs, Anthropic's."""


def answer(reply: bytes) -> Any:
    """A whole reply's own objects; of a stream the text of each answer, joined."""
    events = sse.events(reply)
    if not events:
        whole = _loaded(reply)
        return next((whole[name] for name in _SAID if name in whole), None)
    texts: dict[int, str] = {}
    for index, text in (piece for event in events for piece in _pieces(_loaded(event))):
        texts[index] = texts.get(index, "") + text
    return [texts[index] for index in sorted(texts)]


def _pieces(event: Mapping[str, Any]) -> Iterator[tuple[int, str]]:
    """The texts of one event, each with the number of the answer that it belongs to."""
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or choice
        calls = [call.get("function") or {} for call in delta.get("tool_calls") or ()]
        said = [delta.get("content"), delta.get("text"), *(call.get(part) for call in calls for part in _CALL)]
        yield from ((choice.get("index", 0), text) for text in said if text)
    delta = event.get("delta")
    if isinstance(delta, str) and "reasoning" not in event.get("type", ""):
        yield event.get("output_index", 0), delta
    elif isinstance(delta, dict) and (text := delta.get("text") or delta.get("partial_json")):
        yield event.get("index", 0), text


_CALL = ("name", "arguments")


def _loaded(data: bytes) -> Mapping[str, Any]:
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}
