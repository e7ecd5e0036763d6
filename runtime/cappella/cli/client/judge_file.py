"""Files of questions with answers, for a judge."""

from pathlib import Path

from cappella.cli.client.answer_file import Row, parsed
from cappella.errors import ConfigError
from cappella.vocabulary import Json

KEYS = ("id", "prompt", "messages", "answers", "criteria", "rubric", "want", "seed")
FORM = 'Write one JSON object on each line: {"prompt": "...", "answers": ["...", "..."]}'


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
    row = parsed(line)
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
