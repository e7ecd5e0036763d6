"""Whether a text fits a client's JSON schema or pattern, in a time that ends, whatever a client has written there.

A pattern can take for ever on a text that nearly fits, and so can alternatives that refer to themselves. Both run in
the gateway's one thread.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jsonschema
import referencing
import referencing.exceptions
import referencing.jsonschema
import regex

CHECK_S = 0.1
"""For one text. Real schemas take a thousandth of it."""

_LEFT_OUT = ("unevaluatedProperties", "unevaluatedItems")
Keyword = Callable[..., Iterator[jsonschema.ValidationError]]


class CheckTimeout(Exception):
    """The check was not done in time."""


def matches(pattern: str, text: str, whole: bool, timeout_s: float = CHECK_S) -> bool:
    """Raises Endless."""
    try:
        find = regex.fullmatch if whole else regex.search
        return find(pattern, text, timeout=max(timeout_s, 1e-3)) is not None
    except TimeoutError as error:
        raise CheckTimeout from error


def misfit(schema: Mapping[str, Any], value: Any) -> str | None:
    """The first thing in which the value does not fit the schema. Raises Endless."""
    kind = _kind(schema)
    clock = _Clock(kind)
    keywords = {name: clock.bounded(name) for name in kind.VALIDATORS}
    bounded = jsonschema.validators.extend(kind, keywords)  # type: ignore[no-untyped-call]
    try:
        # Nothing is fetched: a reference to elsewhere is an error, not a download.
        first = next(bounded(schema, registry=referencing.Registry()).iter_errors(value), None)
    except (RecursionError, MemoryError) as error:
        raise CheckTimeout from error
    return None if first is None else str(first.message)


def require_usable(schema: Any) -> None:
    """Raises ValueError, or what jsonschema raises, for a schema that is none or that cannot be checked here."""
    if not isinstance(schema, dict):
        raise TypeError("it is no JSON object")
    _kind(schema).check_schema(schema)
    default = referencing.jsonschema.DRAFT202012
    root = referencing.Resource.from_contents(schema, default_specification=default)
    resolver = referencing.Registry().resolver_with_root(root)
    for key, value in _keywords(schema):
        if key in _LEFT_OUT:
            raise ValueError(f"{key} is not taken")
        if key == "pattern" and isinstance(value, str):
            regex.compile(value)
        if key in ("$ref", "$dynamicRef") and isinstance(value, str):
            try:
                resolver.lookup(value)
            except referencing.exceptions.Unresolvable as error:
                raise ValueError(f"{key} {value[:60]!r} leads nowhere") from error


class _Clock:
    """One check's keywords, each of which looks at the time first."""

    def __init__(self, kind: Any) -> None:
        self._end = time.monotonic() + CHECK_S
        self._known: Mapping[str, Keyword] = kind.VALIDATORS
        # Their own ones match patterns without a limit, or compare every item with every other.
        self._own: Mapping[str, Keyword] = {
            "pattern": self._pattern,
            "patternProperties": self._pattern_properties,
            "additionalProperties": self._additional_properties,
            "uniqueItems": self._unique_items,
        }

    def bounded(self, name: str) -> Keyword:
        check = self._own.get(name, self._known[name])

        def in_time(*arguments: Any) -> Iterator[jsonschema.ValidationError]:
            if time.monotonic() > self._end:
                raise CheckTimeout
            yield from check(*arguments) or ()

        return in_time

    def _matches(self, pattern: str, text: str) -> bool:
        return matches(pattern, text, whole=False, timeout_s=self._end - time.monotonic())

    def _pattern(self, _: Any, pattern: str, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
        if isinstance(value, str) and not self._matches(pattern, value):
            yield jsonschema.ValidationError(f"{value!r} does not match {pattern!r}")

    def _pattern_properties(
        self, validator: Any, patterns: Mapping[str, Any], value: Any, _: Any
    ) -> Iterator[jsonschema.ValidationError]:
        for name in value if isinstance(value, dict) else ():
            for pattern, schema in patterns.items():
                if self._matches(pattern, name):
                    yield from validator.descend(value[name], schema, path=name, schema_path=pattern)

    def _additional_properties(
        self, validator: Any, allowed: Any, value: Any, schema: Mapping[str, Any]
    ) -> Iterator[jsonschema.ValidationError]:
        if isinstance(value, dict):
            patterns = schema.get("patternProperties", {})
            left = {k: v for k, v in value.items() if not any(self._matches(pattern, k) for pattern in patterns)}
            plain = {key: each for key, each in schema.items() if key != "patternProperties"}
            yield from self._known["additionalProperties"](validator, allowed, left, plain)

    def _unique_items(self, _: Any, wanted: bool, value: Any, __: Any) -> Iterator[jsonschema.ValidationError]:
        if wanted and isinstance(value, list) and len({json.dumps(v, sort_keys=True) for v in value}) < len(value):
            yield jsonschema.ValidationError("the same item stands twice")


def _kind(schema: Mapping[str, Any]) -> Any:
    return jsonschema.validators.validator_for(schema, jsonschema.Draft202012Validator)


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key below, and what it holds."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield key, each
            yield from _keywords(each)
    elif isinstance(value, list):
        for each in value:
            yield from _keywords(each)
