"""Which answers say the same, once what does not count is taken away: case, spacing, the spelling of a number."""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from cappella.ensemble.run import Answer
from cappella.ensemble.structured.json_value import value_of

_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?")


def normalise(answer: Answer) -> str:
    """A key that two answers share if they say the same: JSON by value, text by its words, numbers by value."""
    calls = [(call.name, _json(call.arguments) or call.arguments) for call in answer.tool_calls]
    value = as_object(answer)
    content = canonical(value) if value is not None else _words(answer.content)
    return json.dumps([content, calls], sort_keys=True)


def canonical(value: Any) -> str:
    """JSON with sorted keys, texts normalised and 1.0 the same as 1."""
    return json.dumps(_canonical(value), sort_keys=True)


def group_by_meaning(answers: Sequence[Answer]) -> list[list[Answer]]:
    """The answers that say the same together, the largest camp first, then by seat."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(normalise(answer), []).append(answer)
    return sorted(found.values(), key=len, reverse=True)


def as_object(answer: Answer) -> Mapping[str, Any] | None:
    """The JSON object that an answer is, if it is one."""
    value = _json(answer.content)
    return value if isinstance(value, dict) else None


def most_common(values: Sequence[Any]) -> list[Any]:
    """The values that most hold: one, or several with as many votes; of equal ones the first spelling."""
    counts = Counter(canonical(value) for value in values)
    spelt = {canonical(value): value for value in reversed(values)}
    top = max(counts.values())
    return [spelt[key] for key, count in counts.items() if count == top]


def _json(text: str) -> Any:
    try:
        return value_of(text)
    except ValueError:
        return None


def _words(text: str) -> str:
    spelt = _NUMBER.sub(lambda match: _number(match[0]), text.casefold())
    return re.sub(r"[\s.!?]+$", "", re.sub(r"\s+", " ", spelt).strip())


def _number(text: str) -> str:
    try:
        value = Decimal(text.replace(",", ""))
    except InvalidOperation:
        return text
    return f"{value.normalize():f}"


def _canonical(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case int() | float():
            return _number(repr(value)) if repr(value).replace(".", "").lstrip("-").isdigit() else repr(value)
        case str():
            return _words(value)
        case list():
            return [_canonical(each) for each in value]
        case dict():
            return {key: _canonical(each) for key, each in value.items()}
    return value
