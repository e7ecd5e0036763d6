"""The forms that a request of any API sets for its answer, from which a vLLM server makes grammars."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

import orjson

# A grammar may name special tokens, which only the engine's tokenizer knows.
_SPECIAL = ("<|", "<[")
_NAMES = (b'"response_format"', b'"structured_outputs"', b'"tool_choice"', b'"text"', b'"output_config"')
# A name may be written with escapes.
_ESCAPED_LETTER = b"\\u00"

Kind = Literal["json", "regex", "grammar", "choice"]
Form = tuple[Kind, str]
"""The kind of a form, and its text: a schema and choices are JSON."""


def fields_with_forms(body: bytes) -> Mapping[str, Any]:
    """The fields of the JSON body of a request that may set a form; most do not, are not read, and have none here."""
    if _ESCAPED_LETTER not in body and not any(name in body for name in _NAMES):
        return {}
    fields = _parsed(body)
    return fields if isinstance(fields, dict) else {}


def found(fields: Mapping[str, Any]) -> Iterator[Form]:
    """The forms in the fields of a request; what has another shape is left to the engine."""
    schemas = [
        _within(fields, "response_format", "json_schema", "schema"),
        _within(fields, "text", "format", "schema"),
        _within(fields, "output_config", "format", "schema"),
        _within(fields, "structured_outputs", "json"),
        *_called_tools(fields),
        *_tagged(_parsed(_within(fields, "structured_outputs", "structural_tag"))),
        *_tagged(fields.get("response_format")),
    ]
    for schema in map(_parsed, schemas):
        if isinstance(schema, dict):
            yield "json", _text(schema)
    for kind, text in _texts(_within(fields, "structured_outputs")):
        if not (kind == "grammar" and any(mark in text for mark in _SPECIAL)):
            yield kind, text


def _texts(form: Any) -> Iterator[Form]:
    kinds: tuple[Kind, ...] = ("regex", "grammar")
    for kind in kinds:
        if isinstance(text := _within(form, kind), str):
            yield kind, text
    choices = _within(form, "choice")
    if isinstance(choices, list) and choices and all(isinstance(each, str) for each in choices):
        yield "choice", _text(choices)


def _called_tools(fields: Mapping[str, Any]) -> Iterator[Any]:
    """The parameters of the tools that an answer must call; of others no grammar is made."""
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    named = _within(choice, "function", "name") or _within(choice, "name")
    is_forced = choice == "required" or named or _within(choice, "type") == "any"
    for tool in tools if is_forced and isinstance(tools, list) else ():
        function = _within(tool, "function") or tool
        if named in (None, _within(function, "name")):
            yield _within(function, "parameters") or _within(function, "input_schema")


def _tagged(tag: Any) -> Iterator[Any]:
    """The schemas of a structural tag."""
    structures = _within(tag, "structures")
    for structure in structures if isinstance(structures, list) else ():
        yield _within(structure, "schema")


def _text(value: Any) -> str:
    return orjson.dumps(value).decode()


def _parsed(value: Any) -> Any:
    """A value that may be JSON in a string; None if that cannot be parsed."""
    try:
        return orjson.loads(value) if isinstance(value, str | bytes) else value
    except orjson.JSONDecodeError:
        return None


def _within(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
