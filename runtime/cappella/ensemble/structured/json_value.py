"""JSON that a model wrote, as a value with which the rest can work."""

import json
from typing import Any

import orjson

MAX_DEPTH = 64


def value_of(text: str) -> Any:
    """Raises ValueError for what is no JSON, and for what nobody else would take: Infinity, half a surrogate, a deep nest."""
    try:
        orjson.loads(text)
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deep") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [each for part in level if isinstance(part, dict | list) for each in _below(part)]
        if not level:
            return value
    raise ValueError("it is nested too deep")


def _below(part: Any) -> Any:
    return part.values() if isinstance(part, dict) else part
