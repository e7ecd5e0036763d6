"""Checks values against clients' JSON schemas, and texts against their patterns, in bounded time.

Patterns are matched in linear time. The cost of a schema check is bounded by the sizes of schema and value, unless the
schema refers to itself. A check that may be expensive runs in a subprocess, which ends after CHECK_CPU_S. This file is
also the program of that subprocess, so it imports nothing from the package.
"""

import json
import re
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import re2

CHECK_CPU_S = 1
"""The CPU time that one check in a subprocess may take. Real schemas need a thousandth of it."""
MAX_SCHEMA_NODES = 50_000
MAX_PATTERN_STEPS = 50_000
"""The most RE2 instructions that all patterns of one format may have together."""
_MAX_MEMORY_BYTES = 1 << 30

_UNSUPPORTED = ("unevaluatedProperties", "unevaluatedItems")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_CODE_POINT = re.compile(r"(\\\\)|\\u([0-9a-fA-F]{4})")


class CheckTimeout(Exception):
    """The check did not finish within CHECK_CPU_S."""


def pattern_steps(pattern: str) -> int:
    """The number of a pattern's RE2 instructions. Raises ValueError if it is invalid or needs more than linear time."""
    options = re2.Options()
    options.log_errors = False
    try:
        return int(re2.compile(_to_re2(pattern), options).programsize)
    except re2.error as error:
        cause = error.args[0].decode(errors="replace") if error.args else "invalid pattern"
        raise ValueError(f"{cause} (look-around, back-references and \\Z are not supported)") from error


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text."""
    return re2.fullmatch(_to_re2(pattern), text) is not None


def require_usable(schema: Any) -> None:
    """Raises ValueError or TypeError for a schema that is invalid or cannot be checked here."""
    if not isinstance(schema, dict):
        raise TypeError("it is not a JSON object")
    steps = 0
    for nodes, (key, value) in enumerate(_keywords(schema)):
        if nodes > MAX_SCHEMA_NODES or steps > MAX_PATTERN_STEPS:
            raise ValueError("it is too large")
        if key in _UNSUPPORTED:
            raise ValueError(f"{key} is not supported")
        steps += sum(pattern_steps(pattern) for pattern in _patterns(key, value))
    try:
        _validator(schema)
    except ValueError as error:
        raise ValueError(getattr(error, "message", None) or str(error)) from error


def violation(schema: Mapping[str, Any], value: Any) -> str | None:
    """The first violation of the schema by the value; None if there is none."""
    try:
        _validator(schema).validate(value)
    except jsonschema_rs.ValidationError as error:
        return str(error.message)
    return None


def cost(schema: Mapping[str, Any], limit: float) -> float:
    """The number of keywords with every reference expanded; infinite above the limit, or if it refers to itself."""
    try:
        return _Size(schema, limit).of(schema)
    except (_TooLarge, RecursionError):
        return float("inf")


def check_in_subprocess(check: Mapping[str, Any]) -> str | None:
    """The violation of a `schema` by a `value`, or of a `pattern` by a `text`. Raises CheckTimeout."""
    # -P keeps this folder off the path: its modules could hide others of the same name.
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    try:
        done = subprocess.run(command, input=json.dumps(check), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CheckTimeout from error
    violated = json.loads(done.stdout)
    return None if violated is None else str(violated)


class _TooLarge(Exception):
    """The size is above the limit or unbounded."""


class _Size:
    """Computes the size of a schema's parts; a reference is as large as the part that it refers to."""

    def __init__(self, root: Mapping[str, Any], limit: float) -> None:
        self._root = root
        self._limit = limit
        self._nodes = 0
        self._open: set[str] = set()
        self._sizes: dict[str, float] = {}

    def of(self, part: Any) -> float:
        total = 1.0
        self._nodes += 1
        if isinstance(part, dict):
            total += sum(self._of_keyword(part, key, value) for key, value in part.items())
        elif isinstance(part, list):
            total += sum(map(self.of, part))
        if max(total, self._nodes) > self._limit:
            raise _TooLarge
        return total

    def _of_keyword(self, part: Mapping[str, Any], key: str, value: Any) -> float:
        if key in _REFERENCES and isinstance(value, str):
            return self._of_reference(value)
        # Below another base URI, references may point outside the schema.
        if key in ("$id", "id") and isinstance(value, str) and part is not self._root:
            raise _TooLarge
        return self.of(value) + sum(map(pattern_steps, _patterns(key, value)))

    def _of_reference(self, reference: str) -> float:
        if reference in self._open or not (reference == "#" or reference.startswith("#/")):
            raise _TooLarge
        if reference not in self._sizes:
            self._open.add(reference)
            self._sizes[reference] = self.of(self._target(reference))
            self._open.discard(reference)
        return self._sizes[reference]

    def _target(self, reference: str) -> Any:
        part: Any = self._root
        for name in reference.split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(part, dict) or key not in part:
                raise _TooLarge
            part = part[key]
        return part


def _validator(schema: Mapping[str, Any]) -> Any:
    kind: Any = jsonschema_rs.validator_cls_for(dict(schema))
    # offline: a reference to another document is an error, and never a download.
    return kind(dict(schema), pattern_options=jsonschema_rs.RegexOptions(), offline=True, validate_formats=False)


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key and its value at any depth; list items have the key ""."""
    level = [value]
    while level:
        part = level.pop()
        if isinstance(part, dict):
            yield from part.items()
            level += part.values()
        elif isinstance(part, list):
            yield from (("", item) for item in part)
            level += part


def _patterns(key: str, value: Any) -> list[str]:
    if key == "pattern" and isinstance(value, str):
        return [value]
    return list(value) if key == "patternProperties" and isinstance(value, dict) else []


def _to_re2(pattern: str) -> str:
    r"""The pattern in RE2's syntax, which writes \u0041 as \x{0041}."""
    return _CODE_POINT.sub(lambda match: match[1] or f"\\x{{{match[2]}}}", pattern)


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CHECK_CPU_S, CHECK_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    check = json.load(sys.stdin)
    if "pattern" in check:
        error = None if matches(check["pattern"], check["text"]) else "it does not match the pattern"
    else:
        error = violation(check["schema"], check["value"])
    print(json.dumps(error))


if __name__ == "__main__":
    _main()
