"""Limits on requests of all APIs, on what is cheap to send and expensive for an engine."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cappella.errors import RequestError

MAX_MESSAGES = 2048
MAX_ANSWERS = 16
MAX_TOOLS = 128
MAX_STOPS = 16
MAX_STOP_CHARS = 256
MAX_DEPTH = 64
MAX_PATTERN_CHARS = 2048
MAX_CHOICES = 1024
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_DEPTH = 32

_SCHEMAS = ("schema", "json", "json_schema", "parameters", "input_schema")
_PATTERNS = ("regex", "pattern", "grammar")


def require_within_limits(body: Mapping[str, Any]) -> None:
    """Raises RequestError that names the field and the limit."""
    if _depth(body) > MAX_DEPTH:
        raise RequestError(f"The body is nested deeper than {MAX_DEPTH} levels.", code="too_large")
    _at_most("messages", body.get("messages"), MAX_MESSAGES)
    _at_most("input", body.get("input"), MAX_MESSAGES)
    _at_most("tools", body.get("tools"), MAX_TOOLS)
    if answer_count(body) > MAX_ANSWERS:
        raise _too_large("n" if body.get("n") else "prompt", f"at most {MAX_ANSWERS} answers")
    for name in ("stop", "stop_sequences"):
        _at_most(name, body.get(name), MAX_STOPS)
        stops = body.get(name) if isinstance(body.get(name), list) else [body.get(name)]
        if any(isinstance(stop, str) and len(stop) > MAX_STOP_CHARS for stop in stops or ()):
            raise _too_large(name, f"at most {MAX_STOP_CHARS} characters each")
    for name in ("response_format", "structured_outputs", "tools", "text"):
        _require_format_within_limits(name, body.get(name))


def answer_count(body: Mapping[str, Any]) -> int:
    """The number of answers that a request asks for: `n` for each of its prompts. Raises RequestError for an invalid `n`.

    Strict, since vLLM also accepts "9999" and 9999.0.
    """
    n = body.get("n")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise RequestError("n must be an integer of at least 1.", "n")
    prompts = body.get("prompt")
    several = isinstance(prompts, list) and any(isinstance(each, str | list) for each in prompts)
    return (n or 1) * (len(prompts) if several and isinstance(prompts, list) else 1)


def _require_format_within_limits(field: str, value: Any) -> None:
    for key, part in _fields(value):
        if key in _PATTERNS and isinstance(part, str) and len(part) > MAX_PATTERN_CHARS:
            raise _too_large(field, f"a {key} of at most {MAX_PATTERN_CHARS} characters")
        if key == "choice":
            _at_most(field, part, MAX_CHOICES)
        if key in _SCHEMAS:
            if len(part if isinstance(part, str) else orjson.dumps(part)) > MAX_SCHEMA_BYTES:
                raise _too_large(field, f"a schema of at most {MAX_SCHEMA_BYTES} bytes")
            if _depth(_parsed(part)) > MAX_SCHEMA_DEPTH:
                raise _too_large(field, f"a schema at most {MAX_SCHEMA_DEPTH} deep")


def _parsed(schema: Any) -> Any:
    """A schema that may be a string of JSON; None if that cannot be parsed."""
    try:
        return orjson.loads(schema) if isinstance(schema, str) else schema
    except orjson.JSONDecodeError:
        return None


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Each key in the value, at any depth, with its value."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key), each
            yield from _fields(each)
    elif isinstance(value, list):
        for each in value:
            yield from _fields(each)


def _depth(value: Any) -> int:
    """The depth of nesting. Without recursion: a body may be nested deeper than Python's stack."""
    deepest, level = 0, [value]
    while level:
        deepest += 1
        level = [each for part in level for each in _below(part)]
        if deepest > MAX_DEPTH:
            break
    return deepest


def _below(value: Any) -> list[Any]:
    children = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return [each for each in children if isinstance(each, Mapping | list)]


def _at_most(name: str, value: Any, limit: int) -> None:
    if isinstance(value, list) and len(value) > limit:
        raise _too_large(name, f"at most {limit} entries")


def _too_large(name: str, limit: str) -> RequestError:
    return RequestError(f"{name} may have {limit}.", name, "too_large")
