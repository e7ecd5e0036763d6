"""Groups of answers that say the same: the form in which a judge gives them, and those of embeddings that are alike."""

from collections.abc import Mapping, Sequence
from math import sqrt
from typing import Any

from cappella.ensemble import prompts
from cappella.ensemble.structured.json_value import parse_json
from cappella.errors import EngineUnusable
from cappella.types import OutputFormat

TOKENS_OF_A_PAIR = 16
"""Of `"B": "A", ` in any tokenizer, with the blanks that a grammar allows."""


def tokens(answers: int) -> int:
    """The most tokens of a judge's reply."""
    return TOKENS_OF_A_PAIR * (answers + 1)


def form(answers: int) -> OutputFormat:
    """One object with each answer's letter and that of the first one that says the same: every reply is a grouping."""
    letters = prompts.labels(answers)
    of_each = {letter: {"type": "string", "enum": letters[: place + 1]} for place, letter in enumerate(letters)}
    schema: dict[str, Any] = {"type": "object", "properties": of_each, "required": letters}
    json_schema = {"name": "same", "schema": {**schema, "additionalProperties": False}}
    return OutputFormat("response_format", {"type": "json_schema", "json_schema": json_schema})


def parsed(reply: str, labels: Mapping[str, str]) -> list[list[str]]:
    """The groups in a reply, with names for letters. Raises EngineUnusable for one of another form."""
    try:
        first_of, root = parse_json(reply), dict[str, str]()
        if unknown := [first_of[letter] for letter in labels if first_of[letter] not in labels]:
            raise ValueError(f"there is no answer {unknown[0]!r}")
        for letter in labels:
            # One that says the same as another says what that one says.
            root[letter] = root.get(first_of[letter], letter)
        by_first: dict[str, list[str]] = {}
        for letter, first in root.items():
            by_first.setdefault(labels[first], []).append(labels[letter])
    except (ValueError, LookupError, TypeError) as error:
        problem = f"the judge's groups do not match their schema: {error!r}"
        raise EngineUnusable(problem, "judge_schema_mismatch") from error
    return list(by_first.values())


def alike(names: Sequence[str], vectors: Sequence[Sequence[float]], least: float) -> list[list[str]]:
    """The groups of names whose vectors' cosines are all `least` at least; each joins the first that it can."""
    units = [_unit(vector) for vector in vectors]
    groups: list[list[int]] = []
    for place in range(len(names)):
        joined = next((g for g in groups if all(_dot(units[place], units[i]) >= least for i in g)), None)
        if joined is None:
            groups.append([place])
        else:
            joined.append(place)
    return [[names[i] for i in group] for group in groups]


def _unit(vector: Sequence[float]) -> list[float]:
    length = sqrt(_dot(vector, vector)) or 1.0
    return [each / length for each in vector]


def _dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
