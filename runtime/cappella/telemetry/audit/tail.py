"""Reads the end of an audit log: its last intact line, and the torn bytes after it."""

import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from cappella.errors import ConfigError
from cappella.telemetry.audit.chain import GENESIS, MAX_TORN_BYTES, decode

FIRST_BLOCK_BYTES = 64 << 10
_HINT = "Run `cappella audit verify` on it, keep the file, and name another one"


@dataclass(frozen=True, slots=True)
class Tail:
    """Number and hash of the last line, and the `torn` bytes after it."""

    sequence: int = 0
    hash: str = GENESIS
    torn: bytes = b""
    ends_with_newline: bool = True


def read(path: Path) -> Tail:
    """The tail of a file that may be missing. Raises ConfigError if it does not end in a line or a part of one."""
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return Tail()
    block_bytes = FIRST_BLOCK_BYTES
    while size_bytes:
        tail = _find_tail(_last(path, size_bytes, block_bytes), is_all=block_bytes >= size_bytes)
        if tail is not None:
            return _checked(path, tail)
        block_bytes *= 2
        if block_bytes > 2 * MAX_TORN_BYTES:
            raise ConfigError(f"server.audit.file: {path}", "is not an audit log", _HINT)
    return Tail()


def _find_tail(text: bytes, is_all: bool) -> Tail | None:
    """The tail by the last intact line in `text`; None if only an earlier block can hold it."""
    end = len(text)
    while end > 0:
        start = text.rfind(b"\n", 0, end) + 1
        record = decode(text[start:end]) if start or is_all else None
        if record is not None:
            torn = text[end + 1 :]
            return Tail(record["sequence"], record["hash"], torn, end < len(text) and not torn)
        end = start - 1
    return Tail(torn=text, ends_with_newline=False) if is_all else None


def _checked(path: Path, tail: Tail) -> Tail:
    if tail.sequence == 0 and not _is_torn_first_line(tail.torn):
        raise ConfigError(f"server.audit.file: {path}", "is not an audit log", _HINT)
    if tail.torn.endswith(b"\n"):
        # A torn line has no newline: a complete line that does not decode was changed after it was written.
        raise ConfigError(f"server.audit.file: {path}", "its last line was changed after it was written", _HINT)
    return tail


def _is_torn_first_line(text: bytes) -> bool:
    """Whether the text can be the start of a first line. Complete JSON and other file types are not."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text[:2] in (b"{", b'{"') or not text.strip(b"\0")
    return False


def _last(path: Path, size_bytes: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, size_bytes - count), os.SEEK_SET)
        return file.read(count)
