"""How many tokens a model's own reply cost, read from the bytes as they pass."""

from typing import Any

import orjson

from cappella.types import Usage

KEPT_BYTES = 8 << 20
_EVENT = b"data: {"


class Meter:
    """Hears a reply; afterwards `usage` is what it cost.

    A stream without usage has as many tokens as it has events, and no prompt that could be known.
    """

    def __init__(self) -> None:
        self.status_code = 200
        self._events = 0
        self._tail = bytearray()

    def hear(self, data: bytes) -> None:
        # An event's beginning may come in two pieces.
        self._events += (self._tail[1 - len(_EVENT) :] + data).count(_EVENT)
        self._tail += data
        del self._tail[:-KEPT_BYTES]

    @property
    def reply(self) -> bytes:
        """Its last megabytes."""
        return bytes(self._tail)

    @property
    def usage(self) -> Usage:
        pieces = self._tail.splitlines() if self._events else [self._tail]
        for piece in reversed(pieces):
            if usage := _usage(bytes(piece.removeprefix(b"data: "))):
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
