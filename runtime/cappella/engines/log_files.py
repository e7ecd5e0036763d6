"""An engine's log, and those of its lives before: a crash loop must not overwrite its first cause at once."""

from itertools import pairwise
from pathlib import Path

KEPT = 3
"""Logs of earlier lives."""


def rotate(log: Path) -> None:
    """Make room for the log of a new life. Raises OSError."""
    earlier = [log, *(_earlier(log, number) for number in range(1, KEPT + 1))]
    for newer, older in reversed(list(pairwise(earlier))):
        if newer.exists():
            newer.replace(older)


def rotated(found: Path, log: Path) -> Path | None:
    """Where a log of one life stands after one more rotation; None if it is gone then."""
    earlier = [log, *(_earlier(log, number) for number in range(1, KEPT + 1))]
    if found not in earlier:
        return found
    return [*earlier[1:], None][earlier.index(found)]


def _earlier(log: Path, number: int) -> Path:
    return log.with_suffix(".previous.log" if number == 1 else f".previous.{number}.log")
