"""Appends hash-chained lines to an audit log file and syncs them to the disk; one process per file."""

import fcntl
import glob
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cappella.errors import ConfigError, cause
from cappella.telemetry.audit import tail
from cappella.telemetry.audit.chain import CONTINUED, REPAIRED, encode, sha256
from cappella.telemetry.audit.head import Head
from cappella.telemetry.audit.tail import Tail


class Displaced(OSError):
    """The file was removed, moved or replaced while it was open."""


class ChainFile:
    """The file at `path`, created with mode 0600. Not thread-safe.

    A file that reaches `max_bytes` is renamed after the number of its last line, and the chain continues in a new file.
    It does so, with a line that says so, after the file was removed, moved or replaced; while `must_stay` is set,
    writes raise Displaced instead. Raises ConfigError if another process has the file open, or its last line was changed.
    """

    def __init__(self, path: Path, max_bytes: int | None, must_stay: bool = False) -> None:
        self.must_stay = must_stay
        self._path = path
        self._max_bytes = max_bytes
        # Encoded lines not completely written yet. The first may be written in part: the next write continues it.
        self._unwritten = bytearray()
        self._begun_line = b""
        self._is_synced = True
        try:
            self._lock = _lock(path)
            self._head = Head(self._lock)
            end = _end(path)
            self._fd = _open(path)
        except OSError as error:
            hint = "Name a file in a folder that this user can write to"
            raise ConfigError(f"server.audit.file: {path}", f"cannot be used ({cause(error)})", hint) from error
        self._sequence, self._hash = self._head.after(end)
        self._must_tell = (self._sequence, self._hash) != (end.sequence, end.hash)
        self._written = self._sequence
        self._must_repair = self._is_amid_line = not end.ends_with_newline
        self._torn = end.torn

    @property
    def has_pending(self) -> bool:
        """Whether appended lines are not synced to the disk yet."""
        return bool(self._unwritten) or not self._is_synced

    @property
    def unwritten_lines(self) -> int:
        return self._unwritten.count(b"\n")

    def append(self, records: Iterable[Mapping[str, Any]], time: str) -> None:
        """Write the records as lines. Raises OSError; `flush` then continues where it stopped."""
        try:
            self._stay_in_place(time)
        finally:
            self._encode_all(records, time)
        if self._unwritten:
            self.flush(time)

    def flush(self, time: str) -> None:
        """Write and sync all pending lines. Raises OSError."""
        self._is_synced = False
        self._stay_in_place(time)
        if not self._is_amid_line and self._max_bytes and os.fstat(self._fd).st_size >= self._max_bytes:
            self._rotate()
        while self._unwritten:
            self._write()
        os.fdatasync(self._fd)
        self._written, self._is_synced = self._sequence, True
        self._head.note(self._sequence, self._hash)

    def close(self) -> None:
        os.close(self._fd)
        os.close(self._lock)

    def _encode_all(self, records: Iterable[Mapping[str, Any]], time: str) -> None:
        """Encode the records, after what is still to be said about the end of the file that was found."""
        if self._must_repair:
            self._must_repair = False
            self._unwritten += b"\n"
            self._encode(
                {"time": time, "kind": REPAIRED, "torn_bytes": len(self._torn), "torn_sha256": sha256(self._torn)}
            )
        if self._must_tell:
            self._must_tell = False
            self._encode({"time": time, "kind": CONTINUED, "after": self._sequence})
        for record in records:
            self._encode(record)

    def _encode(self, record: Mapping[str, Any]) -> None:
        line, self._hash = encode(record, self._sequence + 1, self._hash)
        self._sequence += 1
        self._unwritten += line

    def _write(self) -> None:
        written = bytes(self._unwritten[: os.write(self._fd, self._unwritten)])
        del self._unwritten[: len(written)]
        *ended, begun = written.split(b"\n")
        self._begun_line = begun if ended else self._begun_line + begun
        self._is_amid_line = bool(self._unwritten)

    def _stay_in_place(self, time: str) -> None:
        """Continue in a new file if the open one does not lie at its path any more. Raises Displaced if it must."""
        if _is_at(self._path, self._fd):
            return
        if self.must_stay:
            raise Displaced("it was removed, moved or replaced")
        try:
            end = tail.read(self._path)
        except ConfigError as error:
            raise Displaced(f"another file lies in its place: {error}") from error
        self._use(_open(self._path))
        # A line that went into the old file in part is written whole.
        self._unwritten[:0] = (b"" if end.ends_with_newline else b"\n") + self._begun_line
        self._begun_line = b""
        self._is_amid_line = self._must_repair = self._must_tell = False
        self._encode({"time": time, "kind": CONTINUED, "after": self._sequence})

    def _rotate(self) -> None:
        """Rename the file once a new one is open to take its place."""
        following = self._path.with_name(f"{self._path.name}.next")
        fd = _open(following)
        self._path.rename(_rotated_path(self._path, self._written))
        following.rename(self._path)
        self._use(fd)

    def _use(self, fd: int) -> None:
        os.close(self._fd)
        self._fd = fd


def _is_at(path: Path, fd: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _open(path: Path) -> int:
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


def _lock(path: Path) -> int:
    """Lock a separate file, since the log itself is renamed when it is rotated."""
    lock = path.with_name(f"{path.name}.lock")
    descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        hint = "Give each server its own file"
        raise ConfigError(f"server.audit.file: {path}", "another process writes to it", hint) from error
    return descriptor


def _end(path: Path) -> Tail:
    """The end of the log; of the last rotated file if the current one is missing or empty."""
    end = tail.read(path)
    if end == Tail() and (rotated := sorted(path.parent.glob(_rotated_pattern(path)))):
        previous = tail.read(rotated[-1])
        return Tail(previous.sequence, previous.hash)
    return end


def _rotated_path(path: Path, sequence: int) -> Path:
    return path.with_name(f"{path.stem}-{sequence:012d}{path.suffix}")


def _rotated_pattern(path: Path) -> str:
    return f"{glob.escape(path.stem)}-{'[0-9]' * 12}{glob.escape(path.suffix)}"
