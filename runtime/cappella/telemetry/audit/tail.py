"""Where a log ends: the line that the chain goes on from, and what a crash left behind it."""

import os
from dataclasses import dataclass
from pathlib import Path

import orjson

from cappella.errors import ConfigError
from cappella.telemetry.audit.chain import GENESIS, MAX_TORN_BYTES, opened

FIRST_BLOCK_BYTES = 64 << 10
_MEND = "See what `cappella audit verify` says, keep the file, and name another one"


@dataclass(frozen=True, slots=True)
class Tail:
    """`torn` are the bytes after the last line; `ended` says whether the file's last byte is a newline."""

    sequence: int = 0
    hash: str = GENESIS
    torn: bytes = b""
    ended: bool = True


def read(path: Path) -> Tail:
    """Of a file that need not be there. Raises ConfigError if its end is neither a line nor a piece of one."""
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return Tail()
    block_bytes = FIRST_BLOCK_BYTES
    while size_bytes:
        tail = _within(_last(path, size_bytes, block_bytes), whole=block_bytes >= size_bytes)
        if tail is not None:
            return _plausible(path, tail)
        block_bytes *= 2
        if block_bytes > 2 * MAX_TORN_BYTES:
            raise ConfigError(f"server.audit.file: {path}", "is no audit log", _MEND)
    return Tail()


def _within(text: bytes, whole: bool) -> Tail | None:
    """By the last line that is sound; None if there may be one further up."""
    end = len(text)
    while end > 0:
        start = text.rfind(b"\n", 0, end) + 1
        record = opened(text[start:end]) if start or whole else None
        if record is not None:
            after = text[end + 1 :]
            return Tail(record["sequence"], record["hash"], after, ended=end < len(text) and not after)
        end = start - 1
    return Tail(torn=text, ended=False) if whole else None


def _plausible(path: Path, tail: Tail) -> Tail:
    if tail.sequence == 0 and not _is_piece(tail.torn):
        raise ConfigError(f"server.audit.file: {path}", "is no audit log", _MEND)
    if tail.torn.endswith(b"\n"):
        # What is torn has no end: a whole line that is not sound was changed after it was written.
        raise ConfigError(f"server.audit.file: {path}", "its last line is not as it was written", _MEND)
    return tail


def _is_piece(text: bytes) -> bool:
    """Whether a first line may have broken off there: not what is JSON as it stands, nor somebody's database."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return text[:2] in (b"{", b'{"') or not text.strip(b"\0")
    return False


def _last(path: Path, size_bytes: int, count: int) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, size_bytes - count), os.SEEK_SET)
        return file.read(count)
