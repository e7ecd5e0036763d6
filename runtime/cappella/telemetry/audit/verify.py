"""Verifies the hash chain of audit logs."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappella.errors import CappellaError, ConfigError, cause
from cappella.telemetry.audit.chain import CONTINUED, GENESIS, MAX_TORN_BYTES, REPAIRED, decode, sha256
from cappella.telemetry.audit.log import LOST

_CHANGED = "changed after it was written"


class AuditBroken(CappellaError):
    """The message names the first line that breaks the chain, and why."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Summary of an intact log. A `last_hash` stored elsewhere later detects a cut-off end or a rewritten log.

    `continued` counts the times at which a file was removed, moved or replaced and the log went on in a new one.
    """

    lines: int
    first_time: str
    last_time: str
    last_hash: str
    repaired: int
    lost: int
    continued: int


def verify(paths: Sequence[Path], after: str = GENESIS, expect: str | None = None) -> Verified:
    """Verify the files of one log, given in any order. `after` is the hash of the last line before them.

    `expect` is the hash of a line that must be present. Raises AuditBroken, and ConfigError for a file that cannot be read.
    """
    chain = _Chain(after, expect)
    for path in sorted(paths, key=_first_sequence):
        for number, line in _lines(path):
            chain.add(f"{path}:{number}", line)
        chain.end_file()
    return chain.summary()


class _Chain:
    """State of the chain after the lines added so far."""

    def __init__(self, after: str, expect: str | None) -> None:
        self._hash = after
        self._sequence: int | None = 0 if after == GENESIS else None
        self._expect = expect
        self._found_expected = expect is None
        self._torn, self._torn_at, self._torn_problem = b"", "", ""
        self._lines = self._repaired = self._lost = self._continued = 0
        self._times: list[str] = []

    def add(self, at: str, line: bytes) -> None:
        """Add the next line, with its newline. Raises AuditBroken."""
        record = decode(line.removesuffix(b"\n"))
        if record is None or not line.endswith(b"\n"):
            self._add_torn(at, line)
            return
        self._require_next(at, record)
        if self._torn or record["kind"] == REPAIRED:
            self._repair(at, record)
        self._hash, self._sequence = record["hash"], record["sequence"]
        self._found_expected |= self._hash == self._expect
        self._lines += 1
        self._lost += record.get("lines", 0) if record["kind"] == LOST else 0
        self._continued += record["kind"] == CONTINUED
        self._times = [*self._times[:1], record["time"]]

    def end_file(self) -> None:
        if self._torn:
            raise AuditBroken(f"{self._torn_at}: {self._torn_problem}.")

    def summary(self) -> Verified:
        if not self._lines:
            raise AuditBroken("These files contain no lines.")
        if not self._found_expected:
            raise AuditBroken(
                f"All {self._lines} lines are intact, but none has the hash {self._expect}: the end was cut off,"
                " or the log was rewritten."
            )
        first, last = self._times[0], self._times[-1]
        return Verified(self._lines, first, last, self._hash, self._repaired, self._lost, self._continued)

    def _add_torn(self, at: str, line: bytes) -> None:
        """Collect bytes that may be left from a crash; the next line must then describe them."""
        if not self._torn:
            is_complete = line.endswith(b"\n")
            self._torn_at = at
            self._torn_problem = _CHANGED if is_complete else "incomplete; the server repairs it at its next start"
        self._torn += line
        if len(self._torn) > MAX_TORN_BYTES:
            raise AuditBroken(f"{self._torn_at}: {_CHANGED}.")

    def _repair(self, at: str, record: dict[str, Any]) -> None:
        torn = self._torn.removesuffix(b"\n")
        if record["kind"] != REPAIRED:
            raise AuditBroken(f"{self._torn_at}: {self._torn_problem}.")
        if (record.get("torn_bytes"), record.get("torn_sha256")) != (len(torn), sha256(torn)):
            raise AuditBroken(f"{self._torn_at or at}: the torn bytes are not those that {at} describes.")
        self._torn, self._torn_at = b"", ""
        self._repaired += 1

    def _require_next(self, at: str, record: dict[str, Any]) -> None:
        sequence, last = record["sequence"], self._sequence
        where = self._torn_at or at
        if last is not None and sequence > last + 1 and not self._torn:
            raise AuditBroken(f"{where}: line {sequence} follows line {last}: lines are missing{_told(record)}.")
        if last is not None and sequence <= last:
            raise AuditBroken(f"{where}: line {sequence} follows line {last}: lines are out of order.")
        if record["previous"] != self._hash:
            changed = f"its previous hash is not that of the line before{_told(record)}"
            problem = self._torn_problem if self._torn else changed
            raise AuditBroken(f"{where}: {problem}.")


def _told(record: dict[str, Any]) -> str:
    return "; here the file before was removed, moved, replaced or cut" if record["kind"] == CONTINUED else ""


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({cause(error)})", "Name readable files of an audit log"
        ) from error


def _first_sequence(path: Path) -> int:
    _, line = next(_lines(path), (0, b""))
    record = decode(line.removesuffix(b"\n"))
    return record["sequence"] if record else 0
