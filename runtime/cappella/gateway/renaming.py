"""Calls of a model by an alias: the engine gets the model's own name, and the reply names the alias."""

import re
from collections.abc import Mapping
from typing import Any

import orjson

from cappella.gateway.reply_lines import ReplyLines
from cappella.gateway.usage_report import Filter

_WITHIN = ("message", "response")
"""What the first events of Anthropic's streams, and all of the Responses API's, wrap the reply in."""


MAX_HEAD_BYTES = 4096


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


class RenamedHead(Filter):
    """The same for a reply with much data after its head, such as embeddings: the first name of the model is replaced."""

    def __init__(self, alias: str, model: str) -> None:
        self._own = re.compile(rb'"model"\s*:\s*' + re.escape(orjson.dumps(model)))
        self._alias = b'"model":' + orjson.dumps(alias)
        self._head: bytes | None = b""

    def feed(self, data: bytes) -> bytes:
        """What is known of the head, once the name has come, or is later than it could be."""
        if self._head is None:
            return data
        head, count = self._own.subn(lambda _: self._alias, self._head + data, count=1)
        self._head = None if count or len(head) > MAX_HEAD_BYTES else head
        return head if self._head is None else b""

    def rest(self) -> bytes:
        return self._head or b""
