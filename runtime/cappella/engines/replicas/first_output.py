"""Holds the beginning of a forwarded stream back until it carries output, since the call can be repeated until then."""

from collections.abc import AsyncIterator
from typing import Any

import orjson

from cappella import sse
from cappella.engines import refusals
from cappella.errors import EngineBroke, EngineError, EngineGaveUp, EngineRejected

MAX_EVENT_BYTES = 1 << 20
"""A longer event has output."""
_ANNOUNCING = frozenset(
    "response.created response.in_progress response.queued response.output_item.added response.content_part.added"
    " message_start content_block_start ping".split()
)
_OUTPUT_FIELDS = ("content", "reasoning", "reasoning_content", "tool_calls", "function_call", "refusal")


async def beginning(body: AsyncIterator[bytes]) -> bytes:
    """The pieces of a stream up to its first output, or all of it. Raises the server's own error that comes before."""
    reader, held = sse.Reader(MAX_EVENT_BYTES), bytearray()
    async for piece in body:
        held += piece
        try:
            events = reader.feed(piece)
        except sse.EventTooLarge:
            break
        if any(_has_output(data) for data in events):
            break
    return bytes(held)


def _has_output(data: bytes) -> bool:
    """Whether an event has output, or is the end. Raises an error of the server's own."""
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return True
    if not isinstance(event, dict):
        return True
    if (found := _error_of(event)) is not None:
        error = refusals.in_stream(found)
        if _may_succeed_elsewhere(error):
            raise error
        return True
    if "type" in event:
        return event["type"] not in _ANNOUNCING
    return any(_choice_has_output(choice) for choice in event.get("choices") or ())


def _error_of(event: dict[str, Any]) -> object:
    if event.get("type") == "response.failed":
        return (event.get("response") or {}).get("error") or {}
    return event.get("error") or (event if event.get("type") == "error" else None)


def _may_succeed_elsewhere(error: EngineError) -> bool:
    if isinstance(error, EngineRejected):
        return not refusals.may_blame_request(error.status_code)
    return isinstance(error, EngineBroke) and not isinstance(error, EngineGaveUp)


def _choice_has_output(choice: Any) -> bool:
    if not isinstance(choice, dict):
        return True
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or choice.get("finish_reason") or any(delta.get(name) for name in _OUTPUT_FIELDS))
