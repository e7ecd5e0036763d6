"""What no request may exceed, whatever API it speaks: what costs an engine much, and a client nothing to write."""

from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cappella.errors import RequestError

MAX_MESSAGES = 2048
MAX_ANSWERS = 16
MAX_TOOLS = 128
MAX_STOPS = 16
MAX_STOP_LENGTH = 256
MAX_DEPTH = 64
MAX_PATTERN = 2048
MAX_CHOICES = 1024
MAX_SCHEMA_BYTES = 64 << 10
MAX_SCHEMA_DEPTH = 32

_SCHEMAS = ("schema", "json", "json_schema", "parameters", "input_schema")
_PATTERNS = ("regex", "pattern", "grammar")


def require_modest(body: Mapping[str, Any]) -> None:
    """Raises RequestError that names the field and the limit."""
    if _depth(body) > MAX_DEPTH:
        raise RequestError(f"The body is nested deeper than {MAX_DEPTH}.", code="too_large")
    _at_most("messages", body.get("messages"), MAX_MESSAGES)
    _at_most("input", body.get("input"), MAX_MESSAGES)
    _at_most("tools", body.get("tools"), MAX_TOOLS)
    if answers(body) > MAX_ANSWERS:
        raise _too_large("n" if body.get("n") else "prompt", f"at most {MAX_ANSWERS} answers")
    for name in ("stop", "stop_sequences"):
        _at_most(name, body.get(name), MAX_STOPS)
        stops = body.get(name) if isinstance(body.get(name), list) else [body.get(name)]
        if any(isinstance(stop, str) and len(stop) > MAX_STOP_LENGTH for stop in stops or ()):
            raise _too_large(name, f"at most {MAX_STOP_LENGTH} characters each")
    for name in ("response_format", "structured_outputs", "tools", "text"):
        _require_modest_form(name, body.get(name))


def answers(body: Mapping[str, Any]) -> int:
    """How many a request asks for: `n` of each of its prompts. Raises RequestError for an `n` that is no number.

    vLLM reads "9999" and 9999.0 as numbers, too.
    """
    n = body.get("n")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise RequestError("n must be a whole number of answers.", "n")
    prompts = body.get("prompt")
    several = isinstance(prompts, list) and any(isinstance(each, str | list) for each in prompts)
    return (n or 1) * (len(prompts) if several and isinstance(prompts, list) else 1)


def _require_modest_form(field: str, value: Any) -> None:
    for key, part in _parts(value):
        if key in _PATTERNS and isinstance(part, str) and len(part) > MAX_PATTERN:
            raise _too_large(field, f"a {key} of at most {MAX_PATTERN} characters")
        if key == "choice":
            _at_most(field, part, MAX_CHOICES)
        if key in _SCHEMAS:
            if len(part if isinstance(part, str) else orjson.dumps(part)) > MAX_SCHEMA_BYTES:
                raise _too_large(field, f"a schema of at most {MAX_SCHEMA_BYTES} bytes")
            if _depth(_read(part)) > MAX_SCHEMA_DEPTH:
                raise _too_large(field, f"a schema at most {MAX_SCHEMA_DEPTH} deep")


def _read(schema: Any) -> Any:
    """A schema may come as text, which says no more here than that it is none."""
    try:
        return orjson.loads(schema) if isinstance(schema, str) else schema
    except orjson.JSONDecodeError:
        return None


def _parts(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key below, and what it holds."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield str(key), each
            yield from _parts(each)
    elif isinstance(value, list):
        for each in value:
            yield from _parts(each)


def _depth(value: Any) -> int:
    """Without recursion: a body may be nested deeper than Python's stack."""
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


def _at_most(name: str, value: Any, most: int) -> None:
    if isinstance(value, list) and len(value) > most:
        raise _too_large(name, f"at most {most} entries")


def _too_large(name: str, limit: str) -> RequestError:
    return RequestError(f"{name} may have {limit}.", name, "too_large")
