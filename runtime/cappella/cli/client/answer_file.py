"""A file of answers to rows, one JSON object on each line: what is there is not asked again."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


@contextmanager
def opened(path: Path, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Write]]:
    """The rows that the file at `path` has no answer to, and what appends one. Raises ConfigError if it is no such file.

    What it has of other rows stays; what was refused, or broke off in the middle of a line, is dropped and asked again.
    """
    kept = answers(path)
    known = {each["key"] for each in kept}
    try:
        # A new file in its place, so that a call that is killed here has lost nothing.
        new = path.with_name(f"{path.name}.new")
        new.write_text("".join(_line(each) for each in kept), encoding="utf-8")
        new.replace(path)
        with path.open("a", encoding="utf-8") as file:

            def write(row: Row, reply: Json) -> None:
                file.write(_line({"id": row.id, "key": row.key, **_without_id(reply)}))
                file.flush()

            yield [row for row in rows if row.key not in known], write
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written ({error})", "Name another file with -o") from error


def answers(path: Path) -> list[Json]:
    """The lines of the file but for refused ones; none if it does not exist. Raises ConfigError if it is no such file."""
    if not path.exists():
        return []
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Name another file with -o") from error
    found = [parsed(line) for line in lines]
    if any(each is None or "key" not in each for each in found[:-1]):
        raise ConfigError(str(path), "is a file of something else", "Name another file with -o")
    return [each for each in found if each is not None and "key" in each and "error" not in each]


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
