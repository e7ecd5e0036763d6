"""Whether audit logs are as they were written: every line by its own hash, and by that of the line before it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappella.errors import CappellaError, ConfigError
from cappella.telemetry.audit.chain import GENESIS, MAX_TORN_BYTES, MENDED, opened, sha256
from cappella.telemetry.audit.log import LOST


class AuditBroken(CappellaError):
    """`str()` names the first line that does not fit, and why."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the files hold; `last_hash` noted elsewhere shows later whether the end was cut off, or all rewritten."""

    lines: int
    first_time: str
    last_time: str
    last_hash: str
    mended: int
    lost: int


def verify(paths: Sequence[Path], after: str = GENESIS, expect: str | None = None) -> Verified:
    """The files of one log, in whatever order they are named. `after` is the hash of the last line before them.

    `expect` is the hash of a line that must be there. Raises AuditBroken for the first line that does not fit.
    """
    chain = _Chain(after, expect)
    for path in sorted(paths, key=_first_sequence):
        for number, line in _lines(path):
            chain.take(f"{path}:{number}", line)
        chain.end_file()
    return chain.verified()


class _Chain:
    """The lines so far."""

    def __init__(self, after: str, expect: str | None) -> None:
        self._hash = after
        self._sequence: int | None = 0 if after == GENESIS else None
        self._expect = expect
        self._expected_seen = expect is None
        self._torn, self._torn_at, self._torn_problem = b"", "", ""
        self._lines = self._mended = self._lost = 0
        self._times: list[str] = []

    def take(self, at: str, line: bytes) -> None:
        """The next line, with its newline. Raises AuditBroken."""
        record = opened(line.removesuffix(b"\n"))
        if record is None or not line.endswith(b"\n"):
            self._take_torn(at, line)
            return
        self._require_next(at, record)
        if self._torn or record["kind"] == MENDED:
            self._mend(at, record)
        self._hash, self._sequence = record["hash"], record["sequence"]
        self._expected_seen |= self._hash == self._expect
        self._lines += 1
        self._lost += record.get("lines", 0) if record["kind"] == LOST else 0
        self._times = [*self._times[:1], record["time"]]

    def end_file(self) -> None:
        if self._torn:
            raise AuditBroken(f"{self._torn_at}: {self._torn_problem}.")

    def verified(self) -> Verified:
        if not self._lines:
            raise AuditBroken("There is no line in these files.")
        if not self._expected_seen:
            raise AuditBroken(
                f"All {self._lines} lines fit, and none of them has the hash {self._expect}: the end was cut off,"
                " or the whole was written anew."
            )
        first, last = self._times[0], self._times[-1]
        return Verified(self._lines, first, last, self._hash, self._mended, self._lost)

    def _take_torn(self, at: str, line: bytes) -> None:
        """What is no line may be what a crash left: the next line that is one then says so, and of which bytes."""
        if not self._torn:
            whole = line.endswith(b"\n")
            self._torn_at = at
            self._torn_problem = "not as it was written" if whole else "breaks off; the server's next start mends it"
        self._torn += line
        if len(self._torn) > MAX_TORN_BYTES:
            raise AuditBroken(f"{self._torn_at}: not as it was written.")

    def _mend(self, at: str, record: dict[str, Any]) -> None:
        torn = self._torn.removesuffix(b"\n")
        if record["kind"] != MENDED:
            raise AuditBroken(f"{self._torn_at}: {self._torn_problem}.")
        if (record.get("torn_bytes"), record.get("torn_sha256")) != (len(torn), sha256(torn)):
            raise AuditBroken(f"{self._torn_at or at}: not what the crash left that {at} tells of.")
        self._torn, self._torn_at = b"", ""
        self._mended += 1

    def _require_next(self, at: str, record: dict[str, Any]) -> None:
        sequence, before = record["sequence"], self._sequence
        where = self._torn_at or at
        if before is not None and sequence > before + 1 and not self._torn:
            raise AuditBroken(f"{where}: this is line {sequence} and follows line {before}: some are missing.")
        if before is not None and sequence <= before:
            raise AuditBroken(f"{where}: this is line {sequence} and follows line {before}: out of its place.")
        if record["previous"] != self._hash:
            problem = self._torn_problem if self._torn else "does not follow from the line before it"
            raise AuditBroken(f"{where}: {problem}.")


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    try:
        with path.open("rb") as file:
            yield from enumerate(file, 1)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({error.strerror})", "Name the files of an audit log") from error


def _first_sequence(path: Path) -> int:
    _, line = next(_lines(path), (0, b""))
    record = opened(line.removesuffix(b"\n"))
    return record["sequence"] if record else 0
