"""The lines of an audit log: each carries the hash of the one before it, and its own.

A line is JSON with sorted keys and no spaces, as UTF-8. `hash` is the SHA-256 of that text without `hash` itself.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

GENESIS = "0" * 64
"""What the first line names as the hash of the line before it."""
MENDED = "mended"
"""The kind of a line that tells of the bytes before it, which a crash left of a line that was being written."""
MAX_TORN_BYTES = 64 << 20
_FIELDS = {"time", "kind", "sequence", "previous", "hash"}


def sealed(record: Mapping[str, Any], sequence: int, previous: str) -> tuple[bytes, str]:
    """The record as a line, with its newline, and that line's hash."""
    numbered = {**record, "sequence": sequence, "previous": previous}
    own = sha256(_canonical(numbered))
    return _canonical({**numbered, "hash": own}) + b"\n", own


def opened(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its newline; None if it is not, to the byte, what `sealed` made."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not set(record) >= _FIELDS:
        return None
    bare = {name: value for name, value in record.items() if name != "hash"}
    whole = (
        type(record["sequence"]) is int and line == _canonical(record) and record["hash"] == sha256(_canonical(bare))
    )
    return record if whole else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
