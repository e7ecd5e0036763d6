"""Files of questions with answers, and of their judgements: what is there is not judged again."""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappella.errors import ConfigError
from cappella.vocabulary import Json

KEYS = ("id", "prompt", "messages", "answers", "criteria", "rubric", "want", "seed")
FORM = 'Write one JSON object on each line: {"prompt": "...", "answers": ["...", "..."]}'


@dataclass(frozen=True, slots=True)
class Row:
    """One question: `body` is what is asked; `key` a hash of that and the row's `id`, by which its judgement is found again."""

    id: str
    body: Json

    @property
    def key(self) -> str:
        asked = json.dumps([self.id, self.body], sort_keys=True)
        return hashlib.sha256(asked.encode()).hexdigest()[:32]


Write = Callable[[Row, Json], None]


def read(path: Path, common: Json) -> list[Row]:
    """The rows of a file, each with the fields of `common` that it does not set. Raises ConfigError with file and line."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Give a file of JSON lines") from error
    rows = [_row(f"{path}:{number}", str(number), line, common) for number, line in enumerate(lines, 1) if line.strip()]
    if not rows:
        raise ConfigError(str(path), "has no questions", FORM)
    return rows


def _row(place: str, number: str, line: str, common: Json) -> Row:
    row = _object(line)
    if row is None:
        raise ConfigError(place, "is no JSON object", FORM)
    if unknown := sorted(row.keys() - set(KEYS)):
        raise ConfigError(place, f"unknown key {unknown[0]!r}", f"Use some of {', '.join(KEYS)}")
    if not isinstance(row.get("answers"), list) or not row["answers"]:
        raise ConfigError(place, "has no list of answers", FORM)
    if ("prompt" in row) == ("messages" in row):
        raise ConfigError(place, "needs either prompt or messages", FORM)
    # A rubric of its own is in the place of the criteria for all.
    defaults = {name: value for name, value in common.items() if name != "criteria" or "rubric" not in row}
    return Row(str(row.pop("id", number)), {**defaults, **row})


@contextmanager
def opened(path: Path, rows: Sequence[Row]) -> Iterator[tuple[list[Row], Write]]:
    """The rows that the file at `path` has no judgement of, and what appends one. Raises ConfigError if it is no such file.

    What it has of other rows stays; what was refused, or broke off in the middle of a line, is dropped and judged again.
    """
    kept = _kept(path)
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


def _kept(path: Path) -> list[Json]:
    if not path.exists():
        return []
    try:
        lines = [line for line in path.read_text(encoding="utf-8").split("\n") if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Name another file with -o") from error
    found = [_object(line) for line in lines]
    if any(each is None or "key" not in each for each in found[:-1]):
        raise ConfigError(str(path), "is a file of something else", "Name another file with -o")
    return [each for each in found if each is not None and "key" in each and "error" not in each]


def _object(line: str) -> Json | None:
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
