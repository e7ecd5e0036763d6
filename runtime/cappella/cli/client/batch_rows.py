"""The rows of a batch: JSON lines, CSV or Parquet, each made into the body of a request."""

import csv
import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cappella.cli.client.answer_file import Row, parsed
from cappella.errors import ConfigError
from cappella.evaluation.data import optional
from cappella.vocabulary import Json

CHAT = "/v1/chat/completions"
FORM = 'Write one JSON object on each line: {"prompt": "..."}, or a row of OpenAI\'s batch API'
OWN_KEYS = ("id", "prompt", "messages", "system", "answers")
MAX_CELL_CHARS = 1 << 30
"""The csv module takes no more than 128 KiB unless told."""

Record = tuple[str, Json]
"""A row of the file, and its place in it."""


@dataclass(frozen=True, slots=True)
class Asking:
    """What is asked of each row: `prompt` and `system` with {columns} in them, and fields for every body.

    With `judge_only` nobody is asked but the judge, of each row's `answers`.
    """

    model: str
    prompt: str | None = None
    system: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    judge_only: bool = False


def read(path: Path, asking: Asking) -> tuple[str, list[Row]]:
    """The endpoint and the rows. Raises ConfigError with file and line."""
    found = [_request(place, number, record, asking) for number, (place, record) in enumerate(_records(path), 1)]
    if not found:
        raise ConfigError(str(path), "has no rows", FORM)
    paths, rows = list(dict.fromkeys(path for path, _ in found)), [row for _, row in found]
    if len(paths) > 1:
        raise ConfigError(str(path), f"has rows for {paths[0]} and for {paths[1]}", "Write a file for each endpoint")
    twice = [name for name, count in Counter(row.id for row in rows).items() if count > 1]
    if twice:
        raise ConfigError(str(path), f"has the id {twice[0]!r} twice", "Give each row an id of its own, or none")
    return paths[0], rows


def columns(path: Path) -> Mapping[str, Json]:
    """The rows of a CSV or Parquet file by their ids, as they stand there."""
    return {_id(number, record): record for number, (_, record) in enumerate(_records(path), 1)}


def _records(path: Path) -> Iterator[Record]:
    readers: Mapping[str, Callable[[Path], Iterator[Record]]] = {".csv": _csv, ".parquet": _parquet}
    try:
        yield from readers.get(path.suffix.lower(), _json_lines)(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), f"cannot be read ({error})", "Give JSON lines, CSV or Parquet") from error


def _json_lines(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", newline="\n") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            record = parsed(line)
            if record is None:
                raise ConfigError(f"{path}:{number}", "is no JSON object", FORM)
            yield f"{path}:{number}", record


def _csv(path: Path) -> Iterator[Record]:
    csv.field_size_limit(MAX_CELL_CHARS)
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.DictReader(file, strict=True)
        try:
            for record in reader:
                place = f"{path}:{reader.line_num}"
                if None in record or None in record.values():
                    names = len(reader.fieldnames or ())
                    raise ConfigError(place, f"has not as many cells as there are columns, {names}", "Mend the row")
                yield place, record
        except csv.Error as error:
            raise ConfigError(f"{path}:{reader.line_num}", f"is no CSV ({error})", "Mend the row") from error


def _parquet(path: Path) -> Iterator[Record]:
    parquet: Any = optional("pyarrow.parquet", "pyarrow", "batch")
    arrow: Any = optional("pyarrow", "pyarrow", "batch")
    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            for group in file.iter_batches(1000):
                for record in group.to_pylist():
                    number += 1
                    yield f"{path}, row {number}", record
    except arrow.ArrowException as error:
        raise ConfigError(str(path), f"is no Parquet file ({error})", "Give JSON lines, CSV or Parquet") from error


def _request(place: str, number: int, record: Json, asking: Asking) -> tuple[str, Row]:
    """The endpoint and the row. A row in the form of OpenAI's batch API is taken as it is."""
    if "body" in record and "url" in record:
        if asking.prompt or asking.judge_only:
            raise ConfigError(place, "is a whole request", "Leave --prompt and --judge-only out")
        if not isinstance(record["body"], dict) or not isinstance(record["url"], str):
            raise ConfigError(place, "has no body that is an object, or no url that is a text", FORM)
        body = {"model": asking.model, **asking.fields, **record["body"]}
        return record["url"], Row(str(record.get("custom_id", number)), body)
    body = {"model": asking.model, "messages": _messages(place, record, asking), **asking.fields}
    if asking.judge_only:
        fusion = {**(body.get("fusion") or {}), "analysis_models": [], "answers": _candidates(place, record)}
        body["fusion"] = fusion
    return CHAT, Row(_id(number, record), body)


def _id(number: int, record: Json) -> str:
    return str(record.get("id", record.get("custom_id", number)))


def _messages(place: str, record: Json, asking: Asking) -> Sequence[Any]:
    messages = record.get("messages")
    if asking.prompt is None and messages is not None:
        if "prompt" in record or not isinstance(messages, list):
            raise ConfigError(place, "needs either prompt or messages, a list", FORM)
        _require_known(place, record)
        own = [{"role": "system", "content": asking.system}] if asking.system else []
        return [*own, *messages]
    if asking.prompt is None:
        if not isinstance(record.get("prompt"), str):
            hint = f'Say what is asked: --prompt "Summarise: {{{next(iter(record), "column")}}}"'
            raise ConfigError(place, "has no prompt", hint)
        _require_known(place, record)
        prompt, system = record["prompt"], record.get("system") or asking.system
    else:
        prompt = filled(place, "--prompt", asking.prompt, record)
        system = asking.system and filled(place, "--system", asking.system, record)
    said = [{"role": "system", "content": system}] if system else []
    return [*said, {"role": "user", "content": prompt}]


def _require_known(place: str, record: Json) -> None:
    """Without a template every key must mean something: a typo would be a request without it."""
    if unknown := sorted(record.keys() - set(OWN_KEYS)):
        hint = f"Use some of {', '.join(OWN_KEYS)}; a --prompt with {{columns}} may use any"
        raise ConfigError(place, f"unknown key {unknown[0]!r}", hint)


def filled(place: str, option: str, template: str, record: Json) -> str:
    """The template with each {column} replaced by the row's value; {{ and }} are braces. Raises ConfigError."""

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name is None:
            return match[0][0]
        if name not in record:
            there = ", ".join(map(str, record)) or "none"
            raise ConfigError(option, f"names {{{name}}}, which {place} does not have", f"Its columns: {there}")
        found = record[name]
        if isinstance(found, str):
            return found
        return "" if found is None else json.dumps(found, ensure_ascii=False, default=str)

    return re.sub(r"\{\{|\}\}|\{([^{}]*)\}", value, template)


def _candidates(place: str, record: Json) -> list[Any]:
    answers = record.get("answers")
    if not isinstance(answers, list) or not answers:
        raise ConfigError(
            place, "has no list of answers, which --judge-only needs", 'Write {"answers": ["...", "..."]}'
        )
    return [{"content": each} if isinstance(each, str) else each for each in answers]
