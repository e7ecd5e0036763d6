"""The prompts of a benchmark: random ones that no cache holds, or those of a file."""

from collections.abc import Iterator
from pathlib import Path
from random import Random

from cappella.errors import ConfigError, cause

WORDS = (
    "the a of to and in is that for on with as by it this which from are was be one all who what when where how why"
    " time year day room house river stone light water paper city north south price rule office plan field letter"
).split()


def drawn(words: int, seed: int) -> Iterator[str]:
    """Endless prompts of common words; each differs from its first word on."""
    draw = Random(seed)
    number = 0
    while True:
        number += 1
        yield f"{number}: {' '.join(draw.choice(WORDS) for _ in range(words))}"


def read(path: Path) -> Iterator[str]:
    """The lines of a file, repeated endlessly. Raises ConfigError if there are none."""
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise ConfigError(
            str(path), f"cannot be read ({cause(error)})", "Give a file with a prompt on each line"
        ) from error
    if not lines:
        raise ConfigError(str(path), "has no prompts", "Give a file with a prompt on each line")
    return _repeated(lines)


def _repeated(lines: list[str]) -> Iterator[str]:
    while True:
        yield from lines
