"""A model's own reply on /v1/messages that calls a tool says so: engines say `end_turn` for a call of a named one."""

from typing import Any

import orjson

from cappella.gateway.usage_report import Filter

_ENDED = ("end_turn", "stop")


class ToolStops(Filter):
    """Makes `tool_use` of the reason why a reply that has such a block ended, in one JSON object or in events.

    Agents call a tool only for this reason. A line that needs no change is passed on as it came.
    """

    def __init__(self, inner: Filter) -> None:
        self._inner = inner
        self._rest = b""
        self._calls = False

    def feed(self, data: bytes) -> bytes:
        complete, newline, self._rest = (self._rest + self._inner.feed(data)).rpartition(b"\n")
        return b"\n".join(map(self._line, complete.split(b"\n"))) + newline

    def rest(self) -> bytes:
        return self._line(self._rest + self._inner.rest())

    def _line(self, line: bytes) -> bytes:
        if b'"tool_use"' not in line and not (self._calls and b'"stop_reason"' in line):
            return line
        field, data = (b"data: ", line[5:]) if line.startswith(b"data:") else (b"", line)
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return line
        return field + orjson.dumps(value) if isinstance(value, dict) and self._is_changed(value) else line

    def _is_changed(self, value: dict[str, Any]) -> bool:
        """Whether the reason in this object, which may be the last event, is another now."""
        blocks = [value.get("content_block"), *_listed(value.get("content"))]
        self._calls = self._calls or any(isinstance(each, dict) and each.get("type") == "tool_use" for each in blocks)
        end = value.get("delta") if value.get("type") == "message_delta" else value
        if not self._calls or not isinstance(end, dict) or end.get("stop_reason") not in _ENDED:
            return False
        end["stop_reason"] = "tool_use"
        return True


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
