"""Calls of a model by an alias: the engine gets the model's own name, and the reply names the alias."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

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


class Renamed(Filter):
    """Puts `alias` into what `inner` shows of a reply, which is one JSON object or lines of events."""

    def __init__(self, alias: str, inner: Filter) -> None:
        self._alias = alias
        self._inner = inner
        self._rest = b""

    def feed(self, data: bytes) -> bytes:
        """The complete lines; a whole reply has one, without an end."""
        complete, newline, self._rest = (self._rest + self._inner.feed(data)).rpartition(b"\n")
        return b"\n".join(map(self._renamed, complete.split(b"\n"))) + newline

    def rest(self) -> bytes:
        return self._renamed(self._rest + self._inner.rest())

    def _renamed(self, line: bytes) -> bytes:
        if b'"model"' not in line:
            return line
        field, data = (b"data: ", line[5:]) if line.startswith(b"data:") else (b"", line)
        try:
            reply = orjson.loads(data)
        except orjson.JSONDecodeError:
            return line
        for part in _parts(reply):
            part["model"] = self._alias
        return field + orjson.dumps(reply)


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


def _parts(reply: Any) -> Iterator[dict[str, Any]]:
    """The objects of a reply that name its model."""
    parts = [reply, *(reply.get(name) for name in _WITHIN)] if isinstance(reply, dict) else []
    yield from (part for part in parts if isinstance(part, dict) and "model" in part)
