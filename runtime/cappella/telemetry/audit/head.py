"""The last line of an audit log, noted in the file that locks it: tells a log that was removed or cut from a new one."""

import os
from contextlib import suppress

from cappella.telemetry.audit.tail import Tail

_BYTES = 96


class Head:
    """Number and hash of the last line on the disk, kept in the open file `lock`."""

    def __init__(self, lock: int) -> None:
        self._lock = lock

    def after(self, end: Tail) -> tuple[int, str]:
        """The number and hash that the next line follows: those noted, if the log that ends in `end` lacks that line."""
        sequence, _, digest = os.pread(self._lock, _BYTES, 0).decode("ascii", "replace").strip().partition(" ")
        if not sequence.isdecimal() or len(digest) != len(end.hash):
            return end.sequence, end.hash
        noted = (int(sequence), digest)
        return noted if noted[0] >= end.sequence else (end.sequence, end.hash)

    def note(self, sequence: int, digest: str) -> None:
        """Note a line that is on the disk. Never fails: the log itself is written, and an older note is true as well."""
        with suppress(OSError):
            os.pwrite(self._lock, f"{sequence:020d} {digest}\n".encode(), 0)
