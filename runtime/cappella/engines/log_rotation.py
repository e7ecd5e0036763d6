"""Rotation of an engine's logs at each launch, so that a crash loop does not overwrite its first cause at once."""

from itertools import pairwise
from pathlib import Path

MAX_ROTATED = 3
"""How many logs of earlier launches stay."""


def rotate(log: Path) -> None:
    """Rename the logs of earlier launches, so that `log` is free for a new one. Raises OSError."""
    for newer, older in reversed(list(pairwise(_newest_first(log)))):
        if newer.exists():
            newer.replace(older)


def path_after_rotation(path: Path, log: Path) -> Path | None:
    """The new path of a log of this engine after one `rotate`; None if it is overwritten."""
    logs = _newest_first(log)
    if path not in logs:
        return path
    return [*logs[1:], None][logs.index(path)]


def _newest_first(log: Path) -> list[Path]:
    suffixes = [".previous.log" if number == 1 else f".previous.{number}.log" for number in range(1, MAX_ROTATED + 1)]
    return [log, *(log.with_suffix(suffix) for suffix in suffixes)]
