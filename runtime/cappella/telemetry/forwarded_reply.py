"""Reads token usage from an engine's reply while its bytes are forwarded to the client."""

from contextlib import suppress
from typing import Any

import orjson

from cappella import sse
from cappella.types import Usage

MAX_TAIL_BYTES = 8 << 20


class ForwardedReply:
    """Collects the pieces of one reply; `usage` holds its tokens once it is complete.

    For a stream without usage, completion tokens are the number of events, and prompt tokens are 0.
    """

    def __init__(self) -> None:
        self.status_code = 200
        self._reader = sse.Reader(MAX_TAIL_BYTES)
        self._events = 0
        self._tail = bytearray()

    def add(self, data: bytes) -> None:
        # Only a complete reply is that large, never an event of a stream.
        with suppress(sse.EventTooLarge):
            self._events += sum(event != sse.DONE for event in self._reader.feed(data))
        self._tail += data
        del self._tail[:-MAX_TAIL_BYTES]

    @property
    def tail(self) -> bytes:
        """The last `MAX_TAIL_BYTES` of the reply."""
        return bytes(self._tail)

    @property
    def usage(self) -> Usage:
        for piece in reversed(sse.events(self.tail) or [self.tail]):
            if usage := _usage(piece):
                return usage
        return Usage(completion_tokens=self._events)


def _usage(piece: bytes) -> Usage | None:
    if b'"usage"' not in piece:
        return None
    try:
        value = orjson.loads(piece)
        usage: dict[str, Any] = value.get("usage") or value.get("response", {}).get("usage") or {}
        prompt = usage.get("prompt_tokens") or usage.get("input_tokens") or 0
        completion = usage.get("completion_tokens") or usage.get("output_tokens") or 0
        prompt, cached, completion = (max(0, int(count)) for count in (prompt, _cached(usage), completion))
        return Usage(prompt, cached, completion) if usage else None
    except (orjson.JSONDecodeError, AttributeError, TypeError, ValueError):
        return None


def _cached(usage: dict[str, Any]) -> int:
    """Prompt tokens read from the cache, by each API's field name."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0
