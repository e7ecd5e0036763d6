"""Compiles the schemas, patterns and grammars of a request with llguidance, as vLLM does, before an engine sees them.

vLLM brings llguidance along; without it, and for what is too large to compile beside the event loop, the engine decides.
"""

import asyncio
import importlib.util
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal

import orjson

from cappella.errors import EngineRejected

MAX_BODY_BYTES = 256 << 10
"""A larger body is not parsed for this."""
MAX_FORM_BYTES = 64 << 10
MAX_ITEMS = 20_000
"""Of all arrays of a schema together: llguidance takes about 100 bytes of memory for each item."""
TIMEOUT_S = 2.0

_INSTALLED = importlib.util.find_spec("llguidance") is not None
_threads = ThreadPoolExecutor(2, "forms")
_NAMES = (b'"response_format"', b'"structured_outputs"', b'"tools"', b'"text"')
# A grammar may name special tokens, which only the engine's tokenizer knows.
_SPECIAL = ("<|", "<[")

Kind = Literal["json", "regex", "grammar"]
Form = tuple[Kind, bytes]
"""The kind of a form, and its text: a schema is JSON."""


async def require_compilable(fields: Mapping[str, Any]) -> None:
    """Raises EngineRejected with the reason if an engine would refuse a form in these fields of a request."""
    forms = tuple(_forms(fields)) if _INSTALLED else ()
    if not forms:
        return
    try:
        async with asyncio.timeout(TIMEOUT_S):
            problem = await asyncio.get_running_loop().run_in_executor(_threads, _first_problem, forms)
    except TimeoutError:
        return
    if problem:
        raise EngineRejected(problem, 400)


async def require_compilable_body(body: bytes) -> None:
    """The same for the JSON body of a request."""
    if not _INSTALLED or len(body) > MAX_BODY_BYTES or not any(name in body for name in _NAMES):
        return
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError:
        return
    if isinstance(fields, dict):
        await require_compilable(fields)


def _forms(fields: Mapping[str, Any]) -> Iterator[Form]:
    """The forms in a request of any API that are small enough; what has another shape is left to the engine."""
    schemas = [
        _within(fields, "response_format", "json_schema", "schema"),
        _within(fields, "text", "format", "schema"),
        _within(fields, "structured_outputs", "json"),
        *_called_tools(fields),
    ]
    for schema in map(_parsed, schemas):
        if isinstance(schema, dict) and _item_bounds(schema) <= MAX_ITEMS:
            yield from _small("json", orjson.dumps(schema))
    kinds: tuple[Kind, ...] = ("regex", "grammar")
    for kind in kinds:
        text = _within(fields, "structured_outputs", kind)
        if isinstance(text, str) and not (kind == "grammar" and any(mark in text for mark in _SPECIAL)):
            yield from _small(kind, text.encode(errors="replace"))


def _small(kind: Kind, text: bytes) -> Iterator[Form]:
    if len(text) <= MAX_FORM_BYTES:
        yield kind, text


def _parsed(schema: Any) -> Any:
    """A schema, which may be JSON in a string; None if that cannot be parsed."""
    try:
        return orjson.loads(schema) if isinstance(schema, str) and len(schema) <= MAX_FORM_BYTES else schema
    except orjson.JSONDecodeError:
        return None


def _within(value: Any, *names: str) -> Any:
    for name in names:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _called_tools(fields: Mapping[str, Any]) -> Iterator[Any]:
    """The parameters of the tools that an answer must call; of others no grammar is made."""
    choice, tools = fields.get("tool_choice"), fields.get("tools")
    if choice != "required" or not isinstance(tools, list):
        return
    for tool in tools:
        yield _within(tool, "function", "parameters")


def _item_bounds(schema: Any) -> int:
    """The sum of all numbers of items in a schema."""
    total, parts = 0, [schema]
    while parts:
        part = parts.pop()
        children = part.values() if isinstance(part, Mapping) else part
        if isinstance(part, Mapping):
            bounds = [part.get(name) for name in ("minItems", "maxItems", "minContains", "maxContains")]
            total += sum(int(bound) for bound in bounds if isinstance(bound, int | float))
        parts += [each for each in children if isinstance(each, Mapping | list)]
    return total


def _first_problem(forms: tuple[Form, ...]) -> str:
    return next((problem for form in forms if (problem := _problem(*form))), "")


@lru_cache(maxsize=128)
def _problem(kind: Kind, text: bytes) -> str:
    """Why the form cannot be compiled, in vLLM's words; empty if it can."""
    import llguidance  # here, since it is not always installed

    try:
        if kind == "json":
            grammar = llguidance.LLMatcher.grammar_from_json_schema(
                text.decode(), defaults={"whitespace_flexible": True}
            )
        else:
            grammar = llguidance.grammar_from(kind, text.decode())
    except (ValueError, KeyError, TypeError) as error:
        return f"Invalid grammar specification: {error}"
    problem = llguidance.LLMatcher.validate_grammar(grammar)
    return f"Grammar error: {problem}" if problem else ""
