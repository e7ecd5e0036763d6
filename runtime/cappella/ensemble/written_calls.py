"""Calls of tools that a model writes as text, because it forgot the form that its template wants."""

import re
from collections.abc import Collection

import orjson

from cappella.ensemble.structured.json_value import parse_json
from cappella.types import ToolCall

_WRAPPED = (
    re.compile(r"<tool_call>(.*)</tool_call>", re.DOTALL),
    re.compile(r"```(?:json)?[ \t]*\n(.*)\n[ \t]*```", re.DOTALL),
)
MAX_CHARACTERS = 20_000


def written_call(text: str, names: Collection[str]) -> ToolCall | None:
    """The call that a text is, and nothing else: an object of one of these `name`s and `arguments`, alone, in a fence or tags."""
    text = text.strip()
    if len(text) > MAX_CHARACTERS:
        return None
    for wrapped in _WRAPPED:
        if whole := wrapped.fullmatch(text):
            text = whole[1].strip()
    try:
        value = parse_json(text) if text.startswith("{") else None
    except ValueError:
        return None
    if not isinstance(value, dict) or value.keys() != {"name", "arguments"}:
        return None
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(0, name=name, arguments=orjson.dumps(arguments).decode())
