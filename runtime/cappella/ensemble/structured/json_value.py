"""Parses JSON written by a model, and refuses values that later steps could not handle."""

import json
from typing import Any

import orjson

MAX_DEPTH = 64


def parse_json(text: str) -> Any:
    """Raises ValueError for invalid JSON, NaN and Infinity, lone surrogates, and nesting deeper than MAX_DEPTH."""
    try:
        orjson.loads(text)
        value = json.loads(text)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [each for part in level if isinstance(part, dict | list) for each in _children(part)]
        if not level:
            return value
    raise ValueError("it is nested too deeply")


def _children(part: Any) -> Any:
    return part.values() if isinstance(part, dict) else part
