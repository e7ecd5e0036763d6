"""Asks each engine for the tokens that a direct call uses, and takes that out of streams whose clients did not ask."""

from collections.abc import Mapping
from typing import Any

import orjson

_WITH_STREAM_OPTIONS = ("/v1/chat/completions", "/v1/completions")
"""The APIs whose streams report their usage only on request, on a chunk without choices."""
MAX_HELD_BYTES = 1 << 20


def requested(path: str, wire: Mapping[str, Any], body: bytes) -> tuple[bytes, "Filter"]:
    """The body to send for `wire`, and what makes the client's reply of the engine's."""
    options = wire.get("stream_options") or {}
    is_asked = not isinstance(options, dict) or options.get("include_usage") is True
    if path not in _WITH_STREAM_OPTIONS or wire.get("stream") is not True or is_asked:
        return body, Filter()
    # vLLM reports the usage so far on every event if both are set, and ignores the one that is left out here.
    ours = {name: value for name, value in options.items() if name != "continuous_usage_stats"}
    return orjson.dumps({**wire, "stream_options": {**ours, "include_usage": True}}), _WithoutUsage()


def tokens_of_an_answer(wire: Mapping[str, Any], context: int) -> int:
    """The most tokens that a model with this context can write in one answer."""
    given = (wire.get(name) for name in ("max_completion_tokens", "max_tokens", "max_output_tokens"))
    limits = [limit for limit in given if isinstance(limit, int) and not isinstance(limit, bool) and limit > 0]
    return min([*limits, context])


class Filter:
    """Passes all pieces of a reply on."""

    @property
    def headers(self) -> Mapping[str, str]:
        """What is to be told of a reply beside its body, as far as that is known."""
        return {}

    def feed(self, data: bytes) -> bytes:
        """What the client gets of the next piece."""
        return data

    def rest(self) -> bytes:
        """What it gets of those kept back, once the reply has ended."""
        return b""


class _WithoutUsage(Filter):
    """Drops the event that only reports usage; keeps back a line that is not complete yet."""

    def __init__(self) -> None:
        self._rest = b""
        self._dropped = False

    def feed(self, data: bytes) -> bytes:
        complete, newline, self._rest = (self._rest + data).rpartition(b"\n")
        held = b""
        if len(self._rest) > MAX_HELD_BYTES:
            held, self._rest = self._rest, b""
        if b'"usage"' in complete or self._dropped:
            complete = b"\n".join(line for line in complete.split(b"\n") if not self._drops(line))
            newline = newline if complete else b""
        return complete + newline + held

    def rest(self) -> bytes:
        return self._rest

    def _drops(self, line: bytes) -> bool:
        """Whether the client must not see this line: the report, or the blank line that ends its event."""
        follows, self._dropped = self._dropped, False
        if follows and not line.strip():
            return True
        self._dropped = line.startswith(b"data:") and b'"usage"' in line and _is_report(line[5:])
        return self._dropped


def _is_report(data: bytes) -> bool:
    try:
        event = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(event, dict) and event.get("choices") == [] and isinstance(event.get("usage"), dict)
