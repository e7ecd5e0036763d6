"""The open end of an audit log: lines are sealed, appended and made safe on the disk, by one process alone."""

import fcntl
import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cappella.errors import ConfigError
from cappella.telemetry.audit import tail
from cappella.telemetry.audit.chain import MENDED, sealed, sha256
from cappella.telemetry.audit.tail import Tail


class ChainFile:
    """The file at `path`, made if it is not there, readable by its owner alone. For one thread at a time.

    A file that has reached `max_bytes` is put aside under the number of its last line, and the next one goes on from it.
    Raises ConfigError if another process has it, or its end is not as it was written.
    """

    def __init__(self, path: Path, max_bytes: int | None) -> None:
        self._path = path
        self._max_bytes = max_bytes
        # Sealed lines that are not, or not wholly, in the file; they go out first, from where they broke off.
        self._owed = bytearray()
        self._is_synced = True
        try:
            self._lock = _locked(path)
            end = _end(path)
            self._fd = _opened(path)
        except OSError as error:
            hint = "Name a file in a folder that this user may write to"
            raise ConfigError(f"server.audit.file: {path}", f"cannot be used ({error})", hint) from error
        self._sequence = self._written = end.sequence
        self._hash = end.hash
        self._mend = self._is_amid_a_line = not end.ended
        self._torn = end.torn

    @property
    def owes(self) -> bool:
        """Whether lines that were given to it are not safe yet."""
        return bool(self._owed) or not self._is_synced

    @property
    def owed_lines(self) -> int:
        return self._owed.count(b"\n")

    def append(self, records: Iterable[Mapping[str, Any]], time: str) -> None:
        """Seal the records and write them. Raises OSError; then `flush` goes on where it stopped."""
        if self._mend:
            self._mend = False
            self._owed += b"\n"
            self._seal({"time": time, "kind": MENDED, "torn_bytes": len(self._torn), "torn_sha256": sha256(self._torn)})
        for record in records:
            self._seal(record)
        if self._owed:
            self.flush()

    def flush(self) -> None:
        """Write what is owed and make it safe. Raises OSError."""
        self._is_synced = False
        if not self._is_amid_a_line and self._max_bytes and os.fstat(self._fd).st_size >= self._max_bytes:
            self._begin_another()
        while self._owed:
            del self._owed[: os.write(self._fd, self._owed)]
            self._is_amid_a_line = bool(self._owed)
        os.fdatasync(self._fd)
        self._written, self._is_synced = self._sequence, True

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._lock)

    def _seal(self, record: Mapping[str, Any]) -> None:
        line, self._hash = sealed(record, self._sequence + 1, self._hash)
        self._sequence += 1
        self._owed += line

    def _begin_another(self) -> None:
        """Put the file aside and open the next; if that fails, what was put aside is written to until it does not."""
        if self._path.exists():
            self._path.rename(_aside(self._path, self._written))
        opened = _opened(self._path)
        os.close(self._fd)
        self._fd = opened


def _opened(path: Path) -> int:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _sync_folder(path.parent)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(path: Path) -> int:
    """A file of its own, since the log itself is put aside at times."""
    lock = path.with_name(f"{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        hint = "Give each server a file of its own"
        raise ConfigError(f"server.audit.file: {path}", "another process writes it", hint) from error
    return descriptor


def _end(path: Path) -> Tail:
    """Of the log; where its file is new or was just put aside, of the one before it."""
    end = tail.read(path)
    if end == Tail() and (aside := sorted(path.parent.glob(_pattern(path)))):
        before = tail.read(aside[-1])
        return Tail(before.sequence, before.hash)
    return end


def _aside(path: Path, sequence: int) -> Path:
    return path.with_name(f"{path.stem}-{sequence:012d}{path.suffix}")


def _pattern(path: Path) -> str:
    return f"{glob.escape(path.stem)}-{'[0-9]' * 12}{glob.escape(path.suffix)}"
