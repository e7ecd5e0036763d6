"""How many tokens a model's own reply cost, read from the bytes as they pass."""

from contextlib import suppress
from typing import Any

import orjson

from cappella import sse
from cappella.types import Usage

KEPT_BYTES = 8 << 20


class Meter:
    """Hears a reply; afterwards `usage` is what it cost.

    A stream without usage has as many tokens as it has events, and no prompt that could be known.
    """

    def __init__(self) -> None:
        self.status_code = 200
        self._reader = sse.Reader(KEPT_BYTES)
        self._events = 0
        self._tail = bytearray()

    def hear(self, data: bytes) -> None:
        # So large is a whole reply, and no event of a stream.
        with suppress(sse.EventTooLarge):
            self._events += sum(event != sse.DONE for event in self._reader.feed(data))
        self._tail += data
        del self._tail[:-KEPT_BYTES]

    @property
    def reply(self) -> bytes:
        """Its last megabytes."""
        return bytes(self._tail)

    @property
    def usage(self) -> Usage:
        for piece in reversed(sse.events(self.reply) or [self.reply]):
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
    """Of the prompt, what the cache held, in the words of each API."""
    details = usage.get("prompt_tokens_details") or usage.get("input_tokens_details") or {}
    return details.get("cached_tokens") or usage.get("cache_read_input_tokens") or 0
