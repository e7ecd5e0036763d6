"""Limits on requests of all APIs, on what is cheap to send and expensive for an engine: `config/limits.py` is their table."""

import re
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Any

import orjson

from cappella.config.limits import Limits
from cappella.engines.schema_size import SchemaTooDeep, schema_size
from cappella.errors import RequestError

MAX_INTEGER = (1 << 63) - 1
"""Engines keep integers in 64 bits, and answer larger ones as a fault of their own."""

# Possessive, and the body's end closes a text: a match never fails, so each byte is read once.
_TEXT = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)'
_BETWEEN = rb'[^"]++'
_TEXTS_OF_PIECE = 4096
_PIECE = re.compile(rb"(?:(?:%b)?+%b){1,%d}+|%b" % (_BETWEEN, _TEXT, _TEXTS_OF_PIECE, _BETWEEN), re.DOTALL)
"""Part of a body: so many texts, with what stands between them. While one is looked at nothing else runs, on whatever thread."""
_TEXT_OF_PIECE = re.compile(_TEXT, re.DOTALL)
TEXTS_PER_VALUE = 2
"""A name and its value; an entry of a list has one at most."""
_TOKENS = ("prompt", "input", "tokens")
_INPUTS = ("documents", "query", "queries", "text_1", "text_2", "data_1", "data_2")
_FORMS = ("response_format", "structured_outputs", "tools", "text")
_TEXTS = ("messages", "input", *_FORMS)
_SCHEMAS = ("schema", "json", "json_schema", "parameters", "input_schema", "structural_tag")
_PATTERNS = ("regex", "pattern", "grammar")


def require_within_limits(body: Mapping[str, Any], limits: Limits = Limits()) -> None:
    """Raises RequestError that names the field and the limit."""
    require_shallow(body, limits)
    for name in ("messages", "input"):
        _at_most(name, body.get(name), limits.messages, "messages")
        _require_few_parts(name, body.get(name), limits)
    for name in _INPUTS:
        _at_most(name, body.get(name), limits.inputs, "inputs")
    _at_most("tools", body.get("tools"), limits.tools, "tools")
    if answer_count(body) > limits.samples:
        raise _too_large("n" if body.get("n") else "prompt", f"at most {limits.samples} answers", "samples")
    for name in ("stop", "stop_sequences"):
        _require_short_stops(name, body.get(name), limits)
    for name, value in body.items():
        if name not in _TEXTS:
            _require_64_bits(name, value)
    _require_modest_forms({name: body[name] for name in _FORMS if body.get(name) is not None}, limits)


def require_few_objects(body: bytes, limits: Limits) -> None:
    """Raises RequestError if JSON has more objects, lists or texts than values are allowed, before it is parsed.

    To parse a million of them takes half a second in which nothing else runs, on whatever thread.
    """
    brackets, quotes = body.count(b"[") + body.count(b"{"), body.count(b'"')
    if brackets <= limits.values and quotes <= 2 * TEXTS_PER_VALUE * limits.values:
        return
    objects = texts = 0
    for piece in _PIECE.finditer(body):
        bare, count = _TEXT_OF_PIECE.subn(b"", piece[0])
        objects, texts = objects + bare.count(b"[") + bare.count(b"{"), texts + count
        if objects > limits.values or texts > TEXTS_PER_VALUE * limits.values:
            raise _too_many_values(limits)


def require_shallow(body: Mapping[str, Any], limits: Limits) -> None:
    """Raises RequestError if the body is nested too deeply, or has too many values."""
    values = 0
    tokens = {id(each) for name in _TOKENS for each in _token_lists(body.get(name))}
    for levels, level in enumerate(_levels(body), 1):
        values += sum(len(each) for each in level if id(each) not in tokens)
        if levels > limits.depth:
            message = f"The body is nested deeper than {limits.depth} levels (server.limits.depth)."
            raise RequestError(message, code="too_large")
        if values > limits.values:
            raise _too_many_values(limits)


def _token_lists(prompt: Any) -> Iterator[list[int]]:
    """The lists in a prompt that have token ids and nothing else."""
    if isinstance(prompt, list):
        for each in prompt if isinstance(next(iter(prompt), None), list) else [prompt]:
            # Not `all(...)` over a generator, which is five times as slow.
            if isinstance(each, list) and set(map(type, each)) <= {int}:
                yield each


def require_few_values(body: Mapping[str, Any], most: int) -> None:
    """Raises RequestError if the body has more than so many values, at any depth."""
    values = 0
    for level in _levels(body):
        values += sum(map(len, level))
        if values > most:
            raise RequestError(f"The body may have {most} values.", code="too_large")


def answer_count(body: Mapping[str, Any]) -> int:
    """The number of answers that a request asks for: `n` for each of its prompts. Raises RequestError for an invalid `n`.

    Strict, since vLLM also accepts "9999" and 9999.0.
    """
    n = body.get("n")
    if n is not None and (not isinstance(n, int) or isinstance(n, bool) or n < 1):
        raise RequestError("n must be an integer of at least 1.", "n")
    prompts = body.get("prompt")
    # The first tells: no engine takes a list of both, and one of tokens may have half a million.
    several = isinstance(prompts, list) and isinstance(next(iter(prompts), None), str | list)
    return (n or 1) * (len(prompts) if several and isinstance(prompts, list) else 1)


def depth(value: Any, most: int) -> int:
    """The depth of nesting, up to one more than `most`."""
    return sum(1 for _ in islice(_levels(value), most + 1))


def _levels(value: Any) -> Iterator[list[Any]]:
    """The objects and lists at each depth. Without recursion: a body may be deeper than Python's stack."""
    level = [value]
    while level:
        yield level
        level = [each for part in level for each in _below(part)]


def _require_few_parts(name: str, messages: Any, limits: Limits) -> None:
    """Parts are counted inside others too, as in the results of tools."""
    parts = images = 0
    level = messages if isinstance(messages, list) else []
    while level:
        contents = [each.get("content", each.get("output")) for each in level if isinstance(each, Mapping)]
        level = [part for content in contents if isinstance(content, list) for part in content]
        parts += len(level)
        images += sum(_is_image(part) for part in level)
    if parts > limits.parts:
        raise _too_large(name, f"at most {limits.parts} parts", "parts")
    if images > limits.images:
        raise _too_large(name, f"at most {limits.images} images", "images")


def _is_image(part: Any) -> bool:
    """vLLM takes parts without a type as well."""
    return isinstance(part, Mapping) and (
        "image" in str(part.get("type")) or any(key.startswith("image") for key in part)
    )


def _require_short_stops(name: str, stops: Any, limits: Limits) -> None:
    _at_most(name, stops, limits.stops, "stops")
    texts = stops if isinstance(stops, list) else [stops]
    if any(isinstance(text, str) and len(text) > limits.stop_chars for text in texts):
        raise _too_large(name, f"at most {limits.stop_chars} characters each", "stop_chars")


def _require_64_bits(name: str, value: Any) -> None:
    """A larger integer has become a float when the body was parsed."""
    level = [value]
    while level:
        if any(isinstance(each, int | float) and abs(each) > MAX_INTEGER for each in level):
            raise RequestError(f"{name} may have numbers of at most {MAX_INTEGER}.", name, "too_large")
        level = list(chain.from_iterable(_values(each) for each in level if isinstance(each, Mapping | list)))


def _require_modest_forms(forms: Mapping[str, Any], limits: Limits) -> None:
    total_bytes = items = patterns = 0.0
    for field, form in forms.items():
        total_bytes += len(orjson.dumps(form))
        if total_bytes > limits.form_bytes:
            raise _too_large(field, f"with all other forms at most {limits.form_bytes} bytes", "form_bytes")
        for key, part in _fields(form):
            if key in _PATTERNS and isinstance(part, str) and len(part) > limits.pattern_chars:
                raise _too_large(field, f"a {key} of at most {limits.pattern_chars} characters", "pattern_chars")
            if key == "choice":
                _require_modest_choice(field, part, limits)
            if key in _SCHEMAS:
                size = _modest_schema(field, part, limits)
                items, patterns = items + size[0], patterns + size[1]
        if items > limits.schema_items:
            raise _too_large(field, f"arrays of at most {limits.schema_items} items in all", "schema_items")
        if patterns > limits.patterns:
            raise _too_large(field, f"at most {limits.patterns} patterns in all", "patterns")


def _require_modest_choice(field: str, choice: Any, limits: Limits) -> None:
    _at_most(field, choice, limits.choices, "choices")
    if len(orjson.dumps(choice)) > limits.choice_bytes:
        raise _too_large(field, f"choices of at most {limits.choice_bytes} bytes in all", "choice_bytes")


def _modest_schema(field: str, written: Any, limits: Limits) -> tuple[float, int]:
    """The items and patterns of a schema, which may be a string of JSON."""
    if len(written if isinstance(written, str) else orjson.dumps(written)) > limits.schema_bytes:
        raise _too_large(field, f"a schema of at most {limits.schema_bytes} bytes", "schema_bytes")
    schema = _parsed(written)
    if depth(schema, limits.schema_depth) > limits.schema_depth:
        raise _too_large(field, f"a schema at most {limits.schema_depth} deep", "schema_depth")
    try:
        size = schema_size(schema, limits.reference_depth)
    except SchemaTooDeep as error:
        what = f"a schema at most {limits.reference_depth} deep with its references followed"
        raise _too_large(field, what, "reference_depth") from error
    if size.properties > limits.properties:
        raise _too_large(field, f"objects of at most {limits.properties} properties", "properties")
    return size.items, size.patterns


def _parsed(schema: Any) -> Any:
    """A schema that may be a string of JSON; None if that cannot be parsed."""
    try:
        return orjson.loads(schema) if isinstance(schema, str) else schema
    except orjson.JSONDecodeError:
        return None


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """Each key in the value with its value, at any depth but below a schema, except a format's own."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            wraps = key == "json_schema" and isinstance(each, Mapping) and "schema" in each
            if wraps or key not in _SCHEMAS:
                yield from _fields(each)
            if not wraps:
                yield str(key), each
    elif isinstance(value, list):
        for each in value:
            yield from _fields(each)


def _below(value: Any) -> list[Any]:
    return [each for each in _values(value) if isinstance(each, Mapping | list)]


def _values(value: Any) -> Any:
    return value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()


def _at_most(name: str, value: Any, most: int, limit: str) -> None:
    if isinstance(value, list) and len(value) > most:
        raise _too_large(name, f"at most {most} entries", limit)


def _too_many_values(limits: Limits) -> RequestError:
    return RequestError(f"The body has more than {limits.values} values (server.limits.values).", code="too_large")


def _too_large(name: str, most: str, limit: str) -> RequestError:
    return RequestError(f"{name} may have {most} (server.limits.{limit}).", name, "too_large")
