"""What came of the rows of a batch: one JSON object for each, and tables of the input with its answers."""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cappella.cli.client import batch_rows
from cappella.cli.client.answer_file import Row
from cappella.errors import ConfigError
from cappella.evaluation.data import optional
from cappella.vocabulary import Json


def answer_of(line: Json, whole: bool) -> Json:
    """A line of an output or error file as a row's answer: `answer`, or `error`; with `whole` the server's reply, too."""
    response = line.get("response") or {}
    body = response.get("body") or {}
    error = line.get("error") or (body.get("error") if response.get("status_code") != 200 else None)
    if error:
        return {"error": str(error.get("message", error) if isinstance(error, dict) else error)}
    answer: Json = {"answer": _text(body), **_about(body)}
    return {**answer, "reply": body} if whole else answer


def _text(body: Json) -> Any:
    """The answer of a reply of any endpoint: its text, or its data."""
    try:
        if "choices" in body:
            choice = body["choices"][0]
            return choice["message"]["content"] if "message" in choice else choice["text"]
        if "output" in body:
            parts = [part for item in body["output"] for part in item.get("content") or () if "text" in part]
            return "".join(part["text"] for part in parts)
        if "content" in body:
            return "".join(part.get("text", "") for part in body["content"])
    except (LookupError, TypeError, AttributeError):
        return None
    return body.get("data", body.get("results", body))


def _about(body: Json) -> Json:
    """What is worth knowing of a run beside its answer."""
    fusion, usage = body.get("fusion") or {}, body.get("usage") or {}
    tokens = usage.get("total_tokens")
    told = {"status": fusion.get("status"), "run_id": fusion.get("run_id"), "tokens": tokens}
    return {name: value for name, value in told.items() if value is not None}


def write_table(source: Path, out: Path, answers: Sequence[Json], rows: Sequence[Row]) -> None:
    """The rows of the source in their order, each with its columns and `answer`; without one where it has none."""
    found = {each["key"]: each for each in answers}
    columns = batch_rows.columns(source)
    table = [{**columns.get(row.id, {"id": row.id}), "answer": _cell(found.get(row.key))} for row in rows]
    new = out.with_name(f"{out.name}.new")
    try:
        _write_csv(new, table) if out.suffix.lower() == ".csv" else _write_parquet(new, table)
        new.replace(out)
    except OSError as error:
        raise ConfigError(str(out), f"cannot be written ({error})", "Name another file with -o") from error


def _cell(answer: Mapping[str, Any] | None) -> str | None:
    value = answer and answer.get("answer")
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)


def _write_csv(path: Path, table: Sequence[Json]) -> None:
    names = list(dict.fromkeys(name for row in table for name in row))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(table)


def _write_parquet(path: Path, table: Sequence[Json]) -> None:
    arrow: Any = optional("pyarrow", "pyarrow", "batch")
    parquet: Any = optional("pyarrow.parquet", "pyarrow", "batch")
    parquet.write_table(arrow.Table.from_pylist(list(table)), path)
