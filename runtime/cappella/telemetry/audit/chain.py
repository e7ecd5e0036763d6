"""Lines of an audit log: each carries its own hash and the hash of the previous line.

A line is JSON with sorted keys and no spaces, as UTF-8. `hash` is the SHA-256 of that text without `hash` itself.
"""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson

GENESIS = "0" * 64
"""The `previous` hash of the first line."""
REPAIRED = "mended"
"""The kind of a line that gives size and hash of the torn bytes before it, left by a crash during a write."""
CONTINUED = "continued"
"""The kind of a line after which the file is not the one before it: that was removed, moved, replaced or cut."""
MAX_TORN_BYTES = 64 << 20
_FIELDS = {"time", "kind", "sequence", "previous", "hash"}


def encode(record: Mapping[str, Any], sequence: int, previous: str) -> tuple[bytes, str]:
    """The record as a line with its newline, and the hash of that line."""
    numbered = {**record, "sequence": sequence, "previous": previous}
    digest = sha256(_canonical(numbered))
    return _canonical({**numbered, "hash": digest}) + b"\n", digest


def decode(line: bytes) -> dict[str, Any] | None:
    """The record of a line without its newline; None if the line is not byte for byte what `encode` wrote."""
    try:
        record = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(record, dict) or not set(record) >= _FIELDS:
        return None
    bare = {name: value for name, value in record.items() if name != "hash"}
    is_intact = (
        type(record["sequence"]) is int and line == _canonical(record) and record["hash"] == sha256(_canonical(bare))
    )
    return record if is_intact else None


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _canonical(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_SORT_KEYS)
