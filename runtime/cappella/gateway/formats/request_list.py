"""The list in a body `{"requests": [...]}` that is too large to be parsed at once: each entry as it arrives."""

import codecs
import json
import re
from typing import Any

from cappella.errors import RequestError

_BEGIN = re.compile(r'\s*\{\s*"requests"\s*:\s*\[')
_NEXT = re.compile(r"\s*,")
_LAST = re.compile(r"\s*\]\s*\}")
_SPACE = re.compile(r"\s*")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


_DECODER = json.JSONDecoder(parse_constant=_refuse_constant)


class RequestList:
    """Reads the list piece by piece. Raises RequestError if there is none, or an entry has more than `most` characters."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._bytes = codecs.getincrementaldecoder("utf-8")()
        self._text = ""
        self._tried = 0
        self._stage = self._begin
        self._found: list[Any] = []

    def read(self, data: bytes, is_last: bool = False) -> list[Any]:
        """The entries that are complete now, and were not before."""
        try:
            self._text += self._bytes.decode(data, is_last)
        except UnicodeDecodeError as error:
            raise _broken("it is not UTF-8 text") from error
        # An entry that comes in many pieces is not tried with each of them.
        if is_last or len(self._text) >= 2 * self._tried:
            at = 0
            while (end := self._stage(at)) is not None:
                at = end
            self._text = self._text[at:]
            self._tried = len(self._text)
        self._require_small(self._tried)
        if is_last and self._stage != self._end:
            raise _broken("it ends too early, or is not JSON")
        found, self._found = self._found, []
        return found

    def size(self, data: bytes) -> int:
        """How many characters are read with these bytes, at most."""
        return len(self._text) + len(data)

    def _begin(self, at: int) -> int | None:
        return self._matched(_BEGIN, at, self._first)

    def _first(self, at: int) -> int | None:
        return self._matched(_LAST, at, self._end) or self._entry(at)

    def _entry(self, at: int) -> int | None:
        at = _SPACE.match(self._text, at).end()  # type: ignore[union-attr]
        if not self._text.startswith("{", at):
            if at < len(self._text):
                raise _broken("each request must be an object")
            return None
        try:
            value, end = _DECODER.raw_decode(self._text, at)
        except RecursionError as error:
            raise _broken("it is nested too deeply") from error
        except ValueError:
            # It may only be incomplete.
            return None
        self._require_small(end - at)
        self._found.append(value)
        self._stage = self._after
        return end

    def _require_small(self, chars: int) -> None:
        if chars > self._most:
            message = f"A request has more than {self._most} bytes (server.max_body_bytes)."
            raise RequestError(message, "requests", "too_large")

    def _after(self, at: int) -> int | None:
        return self._matched(_NEXT, at, self._entry) or self._matched(_LAST, at, self._end)

    def _end(self, at: int) -> int | None:
        if self._text[at:].strip():
            raise _broken("something follows the list")
        return None

    def _matched(self, pattern: re.Pattern[str], at: int, stage: Any) -> int | None:
        if match := pattern.match(self._text, at):
            self._stage = stage
            return match.end()
        return None


def _broken(why: str) -> RequestError:
    return RequestError(f'The body must be {{"requests": [...]}}: {why}.', "requests", "invalid_json")
