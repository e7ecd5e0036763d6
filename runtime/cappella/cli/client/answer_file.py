"""A file of answers to rows, one JSON object on each line: what is there is not asked again."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from cappella.errors import ConfigError
from cappella.vocabulary import Json


@dataclass(frozen=True, slots=True)
class Row:
    """One row: `body` is what is asked; `key` a hash of that and the row's `id`, by which its answer is found again."""

    id: str
    body: Json

    @property
    def key(self) -> str:
        asked = json.dumps([self.id, self.body], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:32]


Write = Callable[[Row, Json], None]
BEGINNING = '{"id": '
"""Of each line."""


@contextmanager
def opened(path: Path, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Write]]:
    """The rows that the file at `path` has no answer to, and what appends one. Raises ConfigError if it is no such file.

    What it has of other rows stays; what was refused, or broke off in the middle of a line, is dropped and asked again. One call
    at a time has the file.
    """
    try:
        # Both files are locked: another call may have opened the one that is replaced.
        with (
            path.open("a", encoding="utf-8") as old,
            path.with_name(f"{path.name}.new").open("a", encoding="utf-8") as file,
        ):
            _lock(old, path)
            _lock(file, path)
            kept = answers(path)
            # A new file in its place, so that a call that is killed here has lost nothing.
            file.truncate(0)
            file.write("".join(_line(each) for each in kept))
            sync(file)
            os.replace(file.name, path)

            def write(row: Row, reply: Json) -> None:
                file.write(_line({"id": row.id, "key": row.key, **_without_id(reply)}))
                file.flush()

            known = {each["key"] for each in kept}
            yield [row for row in rows if row.key not in known], write
            sync(file)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written ({error})", "Name another file with -o") from error


def sync(file: IO[str]) -> None:
    """Wait until what was written is on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _lock(file: IO[str], path: Path) -> None:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise ConfigError(str(path), "is written by another call", "Wait for its end, or name another file") from error


def answers(path: Path) -> list[Json]:
    """The lines of the file but for refused ones; none if it does not exist. Raises ConfigError if it is no such file."""
    if not path.exists():
        return []
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Name another file with -o") from error
    # What stands after the last line feed broke off, if it is ours.
    whole, _, rest = text.rpartition("\n")
    found = [parsed(line) for line in whole.split("\n") if line.strip()]
    is_ours = rest.startswith(BEGINNING) or BEGINNING.startswith(rest)
    if not is_ours or any(each is None or "key" not in each for each in found):
        raise ConfigError(str(path), "is a file of something else", "Name another file with -o")
    return [each for each in found if each is not None and "error" not in each]


def parsed(line: str) -> Json | None:
    """The line's JSON object; None if it is none."""
    try:
        value: Any = json.loads(line)
        # Half of a surrogate pair is JSON, and no text.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _line(value: Json) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"


def _without_id(reply: Json) -> Json:
    """The reply with its own id as that of the run, beside the row's."""
    return {"run_id" if name == "id" else name: value for name, value in reply.items()}
