"""Changes JSON objects in a reply while it is forwarded: one object, or the data of events. Other lines pass as they came."""

from typing import Any

import orjson

from cappella.gateway.usage_report import Filter


class ReplyLines(Filter):
    """What `inner` shows of a reply, with the objects that a subclass changes; a whole reply is one line without an end."""

    def __init__(self, inner: Filter) -> None:
        self._inner = inner
        self._rest = b""

    def may_change(self, line: bytes) -> bool:
        """Whether the line is worth parsing."""
        raise NotImplementedError

    def change(self, value: dict[str, Any]) -> bool:
        """Change the object in place; returns whether anything in it is another now."""
        raise NotImplementedError

    def feed(self, data: bytes) -> bytes:
        complete, newline, self._rest = (self._rest + self._inner.feed(data)).rpartition(b"\n")
        return b"\n".join(map(self._line, complete.split(b"\n"))) + newline

    def rest(self) -> bytes:
        return self._line(self._rest + self._inner.rest())

    def _line(self, line: bytes) -> bytes:
        if not self.may_change(line):
            return line
        field, data = (b"data: ", line[5:]) if line.startswith(b"data:") else (b"", line)
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            return line
        return field + orjson.dumps(value) if isinstance(value, dict) and self.change(value) else line
