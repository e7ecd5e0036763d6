"""Calls of tools that a model writes as text, because it forgot the form that its template wants."""

import json
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

import orjson

from cappella.ensemble.structured.json_value import parse_json
from cappella.types import ToolCall

_BETWEEN = re.compile(r"(?:\s|,|</?tool_call>|```(?:json)?)*")
_FIRST = re.compile(r'\{\s*"(?:name|arguments)"')
_HEADS = ('{"name"', '{"arguments"')
_FRAMES = ("<tool_call>", "</tool_call>", "```", "json")
_NAMED = re.compile(r'\{\s*"name"\s*:\s*"([^"\\]*)"')
MAX_HEAD_CHARACTERS = 500
MAX_CHARACTERS = 20_000
MAX_CALLS = 16


def written_calls(text: str, names: Collection[str]) -> Sequence[ToolCall]:
    """The calls that a text begins with: objects of one of these `name`s and `arguments`, alone, in fences or tags.

    Each counts once. What follows them is what the model makes up as their results.
    """
    calls = dict.fromkeys(_leading(text[:MAX_CHARACTERS], names))
    return [replace(call, index=index) for index, call in enumerate(list(calls)[:MAX_CALLS])]


def may_begin_call(text: str, names: Collection[str]) -> bool:
    """Whether a text that goes on after this may still turn out to begin with a call of one of these `names`."""
    rest = _BETWEEN.sub("", text[:MAX_HEAD_CHARACTERS], count=1)
    if named := _NAMED.match(rest):
        return named[1] in names
    begun = "".join(rest.split())
    return any(head.startswith(begun) for head in (*_HEADS, *_FRAMES)) or begun.startswith(_HEADS)


def _leading(text: str, names: Collection[str]) -> Iterator[ToolCall]:
    decoder, at = json.JSONDecoder(), 0
    while True:
        begins = _BETWEEN.match(text, at)
        at = begins.end() if begins else at
        if not _FIRST.match(text, at):
            return
        try:
            _, ends = decoder.raw_decode(text, at)
            call = _call(parse_json(text[at:ends]), names)
        except (ValueError, RecursionError):
            return
        if call is None:
            return
        yield call
        at = ends


def _call(value: object, names: Collection[str]) -> ToolCall | None:
    if not isinstance(value, dict) or value.keys() != {"name", "arguments"}:
        return None
    name, arguments = value["name"], value["arguments"]
    if not isinstance(name, str) or name not in names or not isinstance(arguments, dict):
        return None
    return ToolCall(0, name=name, arguments=orjson.dumps(arguments).decode())
