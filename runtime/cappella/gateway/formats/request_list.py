"""The list in a body `{"requests": [...]}` that is too large to be parsed at once: each entry as it arrives."""

import codecs
import re
from typing import Any

import orjson

from cappella import lenient_json
from cappella.errors import RequestError
from cappella.gateway.limits import TEXTS_PER_VALUE

_BEGIN = re.compile(r'\s*\{\s*"requests"\s*:\s*\[')
_NEXT = re.compile(r"\s*,")
_LAST = re.compile(r"\s*\]\s*\}")
_SPACE = re.compile(r"\s*")


_PART = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?P<closed>"?)|[{}\[\]]', re.DOTALL)


class RequestList:
    """Reads the list piece by piece. Raises RequestError if there is none, or an entry has too many characters or values.

    An entry is parsed once it is whole and known to be small: nothing else runs meanwhile, on whatever thread.
    """

    def __init__(self, max_chars: int, max_values: int) -> None:
        self._max_chars = max_chars
        self._max_values = max_values
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
        end = self._end_of_entry(at)
        if end is None:
            return None
        self._require_small(end - at)
        try:
            self._found.append(lenient_json.loads(self._text[at:end].encode())[0])
        except orjson.JSONDecodeError as error:
            raise _broken(f"a request is not JSON, {error}") from error
        self._stage = self._after
        return end

    def _end_of_entry(self, at: int) -> int | None:
        """Where the entry that begins there ends; None if it is incomplete."""
        depth = objects = texts = 0
        for part in _PART.finditer(self._text, at):
            match self._text[part.start()]:
                case "{" | "[":
                    depth, objects = depth + 1, objects + 1
                case "}" | "]":
                    depth -= 1
                    if not depth:
                        return part.end()
                case _:
                    texts += 1
                    if not part["closed"]:
                        break
            if objects > self._max_values or texts > TEXTS_PER_VALUE * self._max_values:
                message = f"A request has more than {self._max_values} values (server.limits.values)."
                raise RequestError(message, "requests", "too_large")
        return None

    def _require_small(self, chars: int) -> None:
        if chars > self._max_chars:
            message = f"A request has more than {self._max_chars} bytes (server.max_body_bytes)."
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
