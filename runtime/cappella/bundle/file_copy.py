"""Copies, splits and joins large files, with their SHA-256."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cappella.bundle.manifest import PARTIAL, File, Stored, part_path
from cappella.bundle.progress import Bar, human
from cappella.errors import ConfigError, cause

CHUNK_BYTES = 4 << 20
SYNC_BYTES = 64 << 20
"""Written data is flushed in between; otherwise the bar would be full while most of it is still in memory."""


@contextmanager
def disk_errors(place: Path, hint: str) -> Iterator[None]:
    """Turn errors of the disk into ConfigError."""
    try:
        yield
    except OSError as error:
        at = error.filename or place
        raise ConfigError(str(at), f"cannot be read or written ({cause(error)})", hint) from error


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raises ConfigError if the disk of a folder, which may not exist yet, has too little space."""
    existing = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    free_bytes = shutil.disk_usage(existing).free
    if needed_bytes > free_bytes:
        problem = f"needs {human(needed_bytes)}, but only {human(free_bytes)} are free"
        raise ConfigError(str(folder), problem, "Make room, or use another disk")


def digest(path: Path, bar: Bar) -> str:
    """A file's SHA-256. Raises OSError."""
    with path.open("rb") as file:
        return _read(file, path.stat().st_size, bar)


def store(source: Path, bundle: Path, path: str, role: str, part_bytes: int | None, bar: Bar) -> File:
    """Copy a file into a bundle, in parts if it is larger than `part_bytes`. Correct copies are kept."""
    size_bytes, file_hash, parts = source.stat().st_size, hashlib.sha256(), []
    with source.open("rb") as file:
        if part_bytes is None or size_bytes <= part_bytes:
            only = _copy_part(file, size_bytes, bundle, path, bar)
            return File(path, size_bytes, only.sha256, role)
        for number, start in enumerate(range(0, size_bytes, part_bytes), 1):
            length_bytes = min(part_bytes, size_bytes - start)
            parts.append(_copy_part(file, length_bytes, bundle, part_path(path, number), bar, file_hash))
    return File(path, size_bytes, file_hash.hexdigest(), role, tuple(parts))


def join(bundle: Path, file: File, target: Path, bar: Bar) -> None:
    """Copy a file out of a bundle; `target` appears only if every hash matches. Raises ConfigError otherwise."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial, file_hash = target.with_name(target.name + PARTIAL), hashlib.sha256()
    with partial.open("wb") as out:
        for stored in file.stored:
            check_hash(bundle, stored, bar, file_hash, out=out)
        _to_disk(out)
    check_joined(bundle, file, file_hash)
    partial.replace(target)


def check_hash(bundle: Path, stored: Stored, bar: Bar, *also: "hashlib._Hash", out: BinaryIO | None = None) -> None:
    """Read a file of a bundle, also into other hashers and `out`. Raises ConfigError if its hash is wrong."""
    with (bundle / stored.path).open("rb") as content:
        sha256 = _read(content, stored.size_bytes, bar, *also, out=out)
    if sha256 != stored.sha256:
        raise ConfigError(str(bundle / stored.path), "its SHA-256 differs from the manifest's", "Copy it again")


def check_joined(bundle: Path, file: File, file_hash: "hashlib._Hash") -> None:
    """Check the joined parts: they can differ from the file if the manifest is wrong. Raises ConfigError."""
    if file_hash.hexdigest() != file.sha256:
        raise ConfigError(
            str(bundle / file.path),
            "its parts are correct, but joined they are a different file",
            "Ask the bundle's maker",
        )


def _copy_part(file: BinaryIO, size_bytes: int, bundle: Path, path: str, bar: Bar, *also: "hashlib._Hash") -> Stored:
    """Copy this many bytes from the file's current position."""
    target, start = bundle / path, file.tell()
    if target.is_file() and target.stat().st_size == size_bytes:
        sha256, also = _read(file, size_bytes, bar, *also), ()
        if digest(target, Bar()) == sha256:
            return Stored(path, size_bytes, sha256)
        file.seek(start)
        bar.add(-size_bytes)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + PARTIAL)
    with partial.open("wb") as out:
        sha256 = _read(file, size_bytes, bar, *also, out=out)
        _to_disk(out)
    partial.replace(target)
    return Stored(path, size_bytes, sha256)


def _read(file: BinaryIO, size_bytes: int, bar: Bar, *also: "hashlib._Hash", out: BinaryIO | None = None) -> str:
    """The SHA-256 of the next bytes, which are also written to `out`. Raises OSError if there are fewer."""
    hasher, remaining, unsynced = hashlib.sha256(), size_bytes, 0
    while remaining:
        chunk = file.read(min(CHUNK_BYTES, remaining))
        if not chunk:
            raise OSError(f"{file.name} became shorter while being read")
        for each in (hasher, *also):
            each.update(chunk)
        if out is not None:
            out.write(chunk)
            unsynced += len(chunk)
            if unsynced >= SYNC_BYTES:
                _to_disk(out)
                unsynced = 0
        bar.add(len(chunk))
        remaining -= len(chunk)
    return hasher.hexdigest()


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
