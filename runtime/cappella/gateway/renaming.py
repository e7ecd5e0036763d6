"""Calls of a model by an alias: the engine gets the model's own name, and the reply names the alias."""

from collections.abc import Mapping
from typing import Any

import orjson

from cappella.gateway.reply_lines import ReplyLines
from cappella.gateway.usage_report import Filter

_WITHIN = ("message", "response")
"""What the first events of Anthropic's streams, and all of the Responses API's, wrap the reply in."""


def with_own_name(wire: Mapping[str, Any], body: bytes, model: str) -> tuple[Mapping[str, Any], bytes]:
    """The request with the model's own name, byte for byte as it came if it has that name."""
    if wire["model"] == model:
        return wire, body
    named = {**wire, "model": model}
    return named, orjson.dumps(named)


class Renamed(ReplyLines):
    """Puts `alias` into what `inner` shows of a reply, which is one JSON object or lines of events."""

    def __init__(self, alias: str, inner: Filter) -> None:
        super().__init__(inner)
        self._alias = alias

    def may_change(self, line: bytes) -> bool:
        return b'"model"' in line

    def change(self, value: dict[str, Any]) -> bool:
        parts = [part for part in (value, *map(value.get, _WITHIN)) if isinstance(part, dict) and "model" in part]
        for part in parts:
            part["model"] = self._alias
        return bool(parts)
