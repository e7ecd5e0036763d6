"""Reads the input file of a batch line by line: where each row lies in it, or what is wrong with its lines."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import orjson

from cappella import lenient_json
from cappella.batch.types import NewRow
from cappella.errors import Forbidden, RequestError
from cappella.types import Json

MAX_PROBLEMS = 100
MAX_ID_CHARS = 512
NO_STREAM = "A row of a batch has one reply, and cannot be streamed: leave stream out."
_SKIPPED_BYTES = 1 << 20
_BOM = b"\xef\xbb\xbf"
_PREFIXES = (256, 1 << 10, 4 << 10, 16 << 10, 64 << 10)
_TEXTS = ("tools", "system", "instructions", "messages", "input", "prompt", "query")

Check = Callable[[Json], None]


@dataclass(slots=True)
class Rows:
    """The rows of an input, and what is wrong with it, as OpenAI tells it."""

    rows: list[NewRow] = field(default_factory=list)
    problems: list[Json] = field(default_factory=list)


def read_rows(path: Path, endpoint: str, check: Check, max_rows: int, max_line_bytes: int) -> Rows:
    """The rows of a file for this endpoint. `check` raises RequestError or Forbidden for a body that cannot be answered."""
    reader = _Reader(endpoint, check)
    with path.open("rb") as file:
        for number, offset, line in _lines(file, max_line_bytes):
            if len(reader.found.rows) >= max_rows:
                reader.tell(number, f"A batch may have {max_rows} rows (server.batch.max_rows).", "too_many_rows")
                break
            if line is None:
                message = f"The line is larger than {max_line_bytes} bytes (server.max_body_bytes)."
                reader.tell(number, message, "line_too_large")
            else:
                reader.read(number, offset, line)
            if len(reader.found.problems) >= MAX_PROBLEMS:
                break
    if not reader.found.rows and not reader.found.problems:
        reader.tell(None, "The file has no rows.", "empty_file")
    return reader.found


def order_of(body: Json) -> bytes:
    """A key by which rows of one model that begin alike come together: the longer that is, the closer."""
    parts = [body[name] for name in _TEXTS if name in body]
    try:
        text = orjson.dumps(parts)
    except TypeError:
        # Halves of characters, or integers of more than 64 bits.
        text = str(parts).encode("utf-8", "surrogatepass")
    model = hashlib.blake2b(str(body.get("model")).encode("utf-8", "replace"), digest_size=8).digest()
    return model + b"".join(hashlib.blake2b(text[:size], digest_size=8).digest() for size in _PREFIXES)


def _lines(file: BinaryIO, most: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Number, place and text of each line that is not empty; None for the text of one that is too large to be read."""
    number, end = 0, 0
    while text := file.readline(most + 1):
        number, start, end = number + 1, end, end + len(text)
        if number == 1 and text.startswith(_BOM):
            text, start = text[len(_BOM) :], len(_BOM)
        if len(text) > most and not text.endswith(b"\n"):
            end += _skip_line(file)
            yield number, start, None
        elif text.strip():
            yield number, start, text


def _skip_line(file: BinaryIO) -> int:
    """Read on to the end of a line; the bytes that were skipped."""
    skipped = 0
    while text := file.readline(_SKIPPED_BYTES):
        skipped += len(text)
        if text.endswith(b"\n"):
            break
    return skipped


class _Reader:
    def __init__(self, endpoint: str, check: Check) -> None:
        self.found = Rows()
        self._endpoint = endpoint
        self._check = check
        self._ids: set[str] = set()

    def read(self, number: int, offset: int, line: bytes) -> None:
        try:
            row = lenient_json.loads(line)[0]
            custom_id, body = self._checked(row)
        except orjson.JSONDecodeError as error:
            self.tell(number, f"The line is not JSON: {error}.", "invalid_json_line")
        except _Mistake as error:
            self.tell(number, str(error), error.code, error.param)
        else:
            self._ids.add(custom_id)
            self.found.rows.append(NewRow(number, custom_id, offset, len(line), order_of(body)))

    def tell(self, number: int | None, message: str, code: str, param: str | None = None) -> None:
        self.found.problems.append({"code": code, "line": number, "message": message, "param": param})

    def _checked(self, row: Any) -> tuple[str, Json]:
        """The row's id and body. Raises _Mistake."""
        if not isinstance(row, dict):
            raise _Mistake("invalid_json_line", "The line must be a JSON object.")
        custom_id, body = row.get("custom_id"), row.get("body")
        if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= MAX_ID_CHARS:
            message = f"custom_id must be a text of 1 to {MAX_ID_CHARS} characters."
            raise _Mistake("invalid_custom_id" if "custom_id" in row else "missing_custom_id", message, "custom_id")
        if custom_id in self._ids:
            raise _Mistake("duplicate_custom_id", f"custom_id {custom_id[:80]!r} is used twice.", "custom_id")
        if row.get("method") != "POST":
            raise _Mistake("invalid_method", "method must be POST.", "method")
        if row.get("url") != self._endpoint:
            raise _Mistake("invalid_url", f"url must be the endpoint of the batch, {self._endpoint}.", "url")
        if not isinstance(body, dict):
            raise _Mistake("invalid_body", "body must be an object: the request.", "body")
        if body.get("stream"):
            raise _Mistake("stream_unsupported", NO_STREAM, "body.stream")
        try:
            self._check(body)
        except RequestError as error:
            raise _Mistake(error.code, str(error), f"body.{error.param}" if error.param else "body") from error
        except Forbidden as error:
            raise _Mistake(error.code, str(error), "body.model") from error
        return custom_id, body


class _Mistake(Exception):
    """What is wrong with a line. Its code is OpenAI's for a line, and none of a reply."""

    def __init__(self, code: str, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.param = param
