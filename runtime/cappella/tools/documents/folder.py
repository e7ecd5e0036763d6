"""The files of a folder, each read once and in full; nothing outside the folder is opened."""

import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Kind = Literal["paged", "html", "markdown", "text", "csv"]

KINDS: dict[str, Kind] = {
    ".pdf": "paged",
    ".docx": "paged",
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".markdown": "markdown",
    ".txt": "text",
    ".text": "text",
    ".rst": "text",
    ".csv": "csv",
    ".tsv": "csv",
}
"""The kinds of files that are read, by the ends of their names."""


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file of a kind that is read; `path` is relative to the folder, with `/`."""

    path: str
    kind: Kind
    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


@dataclass(slots=True)
class Skipped:
    """How many files were not read, by the reason; `unopened` are files and folders that may be there nevertheless."""

    counts: Counter[str] = field(default_factory=Counter)
    unopened: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        self.counts[reason] += 1


class UnreadableFile(Exception):
    """One file cannot be read: `str(error)` says why, for a person."""


class UnopenedFile(UnreadableFile):
    """It may be opened another time, though it looks the same."""


class UnfinishedFile(UnreadableFile):
    """It may be read another time, by a machine with less to do."""


def files_in(folder: Path, skipped: Skipped) -> Iterator[FoundFile]:
    """The files to read, in order. Hidden ones are left out, and no link is followed. Raises OSError for the folder."""
    pending = [""]
    while pending:
        here = pending.pop()
        try:
            with os.scandir(folder / here) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            if not here:
                raise
            skipped.add("a folder that cannot be opened")
            skipped.unopened.append(here)
            continue
        for entry in found:
            path = f"{here}/{entry.name}" if here else entry.name
            if entry.name.startswith("."):
                skipped.add("hidden")
            elif entry.is_dir(follow_symlinks=False):
                pending.append(path)
            elif file := _file(entry, path, skipped):
                yield file


def _file(entry: os.DirEntry[str], path: str, skipped: Skipped) -> FoundFile | None:
    suffix = os.path.splitext(entry.name)[1].lower()
    kind = KINDS.get(suffix)
    if entry.is_symlink():
        skipped.add("a symbolic link")
    elif kind is None:
        skipped.add(f"of another kind ({suffix or 'no ending'})" if suffix.isascii() else "of another kind")
    elif not _is_utf8(path):
        skipped.add("its name is not UTF-8")
    else:
        try:
            known = entry.stat(follow_symlinks=False)
        except OSError:
            skipped.unopened.append(path)
            return None
        if stat.S_ISREG(known.st_mode):
            times = (known.st_mtime_ns, known.st_ctime_ns)
            return FoundFile(path, kind, known.st_size, *times, known.st_ino, known.st_dev)
        skipped.add("not a plain file")
    return None


def is_on_another_device(folder: Path, path: str, device: int) -> bool:
    """Whether what is left of the folders above a missing file is elsewhere than it was: its disk may be away for a while."""
    for above in Path(path).parents:
        try:
            return os.stat(folder / above).st_dev != device
        except OSError:
            continue
    return True


def _is_utf8(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def content_of(folder: Path, path: str, max_bytes: int) -> bytes:
    """The bytes of a file. Raises UnreadableFile, also where a link leads out of the folder meanwhile."""
    try:
        # Not blocking: what was a file a moment ago may be a pipe by now.
        descriptor = os.open(folder / path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            known = os.fstat(descriptor)
            opened = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
            if not stat.S_ISREG(known.st_mode) or not opened.is_relative_to(folder.resolve()):
                raise UnreadableFile("it is not a plain file of the folder")
            if known.st_size > max_bytes:
                raise UnreadableFile(f"it is larger than {max_bytes >> 20} MiB")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise UnopenedFile(f"it cannot be opened ({error.strerror})") from error
    if len(content) > max_bytes:
        raise UnreadableFile(f"it is larger than {max_bytes >> 20} MiB")
    return content
