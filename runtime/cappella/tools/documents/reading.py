"""How `reader.py` is run: a process for each document, with limits on its memory and time."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from cappella.tools.documents.reader import TOO_COMPLEX, UNABLE
from cappella.types import Json


@dataclass(frozen=True, slots=True)
class ReadingLimits:
    """What is read of a document, and what that may cost."""

    size_bytes: int = 32 << 20
    pages: int = 1000
    chars: int = 2_000_000
    memory_bytes: int = 1 << 30
    cpu_s: int = 30
    wall_s: float = 60.0


def command(limits: ReadingLimits, *kind: str) -> Sequence[str]:
    """The command of the process, which is to have an empty environment; `kind` is `html`, or nothing."""
    most = (limits.memory_bytes, limits.cpu_s, limits.pages, limits.chars)
    return [sys.executable, "-I", str(Path(__file__).with_name("reader.py")), *(str(each) for each in most), *kind]


def found(status: int | None, said: bytes) -> Json:
    """What the process said; raises RuntimeError where it failed by no fault of the document."""
    if status == 1:
        raise RuntimeError("reader.py failed.")
    # The kernel ends a process that meets its limit.
    told: Json = orjson.loads(said) if status == 0 else {"problem": TOO_COMPLEX}
    if told.get("problem") == UNABLE:
        raise RuntimeError(f"reader.py cannot run: {told['reason']}")
    return told
