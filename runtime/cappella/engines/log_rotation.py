"""An engine's logs: only their owner reads them, each has a largest size, and those of earlier launches stay.

A crash loop does not overwrite its first cause at once.
"""

import os
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO

MAX_ROTATED = 3
"""How many logs of earlier launches stay."""
MAX_LOG_BYTES = 32 << 20
"""A larger log loses its older half while the engine runs."""
MODE = 0o600


def create(log: Path) -> BinaryIO:
    """An empty log that only its owner can read, whoever made the file. Raises OSError."""
    # Appending, so that a log that is cut short goes on at its end, and not with a gap.
    file = os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, MODE), "wb")
    os.fchmod(file.fileno(), MODE)
    file.truncate(0)
    return file


def shorten(log: Path, max_bytes: int = MAX_LOG_BYTES) -> int:
    """Cut the older half off a log that is too large; returns how many bytes that were. Raises OSError.

    Its writer goes on in the same file, and what it writes in this very moment is lost.
    """
    size_bytes = log.stat().st_size
    if size_bytes <= max_bytes:
        return 0
    with log.open("rb+") as file:
        file.seek(size_bytes - max_bytes // 2)
        _, _, kept = file.read(max_bytes // 2).partition(b"\n")
        file.seek(0)
        file.write(kept)
        file.truncate()
    return size_bytes - len(kept)


def rotate(log: Path) -> None:
    """Rename the logs of earlier launches, so that `log` is free for a new one. Raises OSError."""
    for newer, older in reversed(list(pairwise(newest_first(log)))):
        if newer.exists():
            newer.replace(older)


def path_after_rotation(path: Path, log: Path) -> Path | None:
    """The new path of a log of this engine after one `rotate`; None if it is overwritten."""
    logs = newest_first(log)
    if path not in logs:
        return path
    return [*logs[1:], None][logs.index(path)]


def newest_first(log: Path) -> list[Path]:
    """The paths of this launch's log and those of earlier ones; not all need exist."""
    suffixes = [".previous.log" if number == 1 else f".previous.{number}.log" for number in range(1, MAX_ROTATED + 1)]
    return [log, *(log.with_suffix(suffix) for suffix in suffixes)]
