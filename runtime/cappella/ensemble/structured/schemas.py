"""Whether a value fits a client's JSON schema, or a text a client's pattern, in a time that ends.

Patterns are matched in linear time, and what a schema costs at most follows from its size and the value's, unless it
refers to itself. A check that may be dear runs in a process of its own, which ends after CHECK_CPU_S. This file is that
process's program, too: it imports nothing of the package.
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
"""For one text. Real schemas take a thousandth of it."""
MAX_SCHEMA_NODES = 50_000
MAX_PATTERN_STEPS = 50_000
"""The instructions of all patterns of one form together."""
_MAX_MEMORY_BYTES = 1 << 30

_LEFT_OUT = ("unevaluatedProperties", "unevaluatedItems")
_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")
_CODE_POINT = re.compile(r"(\\\\)|\\u([0-9a-fA-F]{4})")


class CheckTimeout(Exception):
    """The check was not done in time."""


def require_pattern(pattern: str) -> int:
    """The number of its instructions. Raises ValueError for what is no pattern, or cannot be matched in linear time."""
    options = re2.Options()
    options.log_errors = False
    try:
        return int(re2.compile(_spelt(pattern), options).programsize)
    except re2.error as error:
        why = error.args[0].decode(errors="replace") if error.args else "no pattern"
        raise ValueError(f"{why} (look-around, back-references and \\Z are not taken)") from error


def matches(pattern: str, text: str) -> bool:
    """Whether the pattern matches the whole text."""
    return re2.fullmatch(_spelt(pattern), text) is not None


def require_usable(schema: Any) -> None:
    """Raises ValueError or TypeError for a schema that is none, or that cannot be checked here."""
    if not isinstance(schema, dict):
        raise TypeError("it is no JSON object")
    steps = 0
    for nodes, (key, value) in enumerate(_keywords(schema)):
        if nodes > MAX_SCHEMA_NODES or steps > MAX_PATTERN_STEPS:
            raise ValueError("it is too large")
        if key in _LEFT_OUT:
            raise ValueError(f"{key} is not taken")
        steps += sum(require_pattern(pattern) for pattern in _patterns(key, value))
    try:
        _validator(schema)
    except ValueError as error:
        raise ValueError(getattr(error, "message", None) or str(error)) from error


def misfit(schema: Mapping[str, Any], value: Any) -> str | None:
    """The first thing in which the value does not fit the schema."""
    try:
        _validator(schema).validate(value)
    except jsonschema_rs.ValidationError as error:
        return str(error.message)
    return None


def cost(schema: Mapping[str, Any], limit: float) -> float:
    """How many keywords it has with each reference written out; infinite above the limit, or if it refers to itself."""
    try:
        return _Size(schema, limit).of(schema)
    except (_TooLarge, RecursionError):
        return float("inf")


def run_apart(check: Mapping[str, Any]) -> str | None:
    """One check in a process of its own: a `schema` and a `value`, or a `pattern` and a `text`. Raises Endless."""
    # Not with this folder in the path: its modules are not the process's.
    command = [sys.executable, "-P", str(Path(__file__).resolve())]
    try:
        done = subprocess.run(command, input=json.dumps(check), capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise CheckTimeout from error
    found = json.loads(done.stdout)
    return None if found is None else str(found)


class _TooLarge(Exception):
    """Above the limit, or without one."""


class _Size:
    """The size of a schema's parts, each reference as large as what it refers to."""

    def __init__(self, root: Mapping[str, Any], limit: float) -> None:
        self._root = root
        self._limit = limit
        self._seen = 0
        self._open: set[str] = set()
        self._known: dict[str, float] = {}

    def of(self, part: Any) -> float:
        total = 1.0
        self._seen += 1
        if isinstance(part, dict):
            total += sum(self._of_keyword(part, key, value) for key, value in part.items())
        elif isinstance(part, list):
            total += sum(map(self.of, part))
        if max(total, self._seen) > self._limit:
            raise _TooLarge
        return total

    def _of_keyword(self, part: Mapping[str, Any], key: str, value: Any) -> float:
        if key in _REFERENCES and isinstance(value, str):
            return self._referred(value)
        # References below another base lead elsewhere.
        if key in ("$id", "id") and isinstance(value, str) and part is not self._root:
            raise _TooLarge
        return self.of(value) + sum(map(require_pattern, _patterns(key, value)))

    def _referred(self, reference: str) -> float:
        if reference in self._open or not (reference == "#" or reference.startswith("#/")):
            raise _TooLarge
        if reference not in self._known:
            self._open.add(reference)
            self._known[reference] = self.of(self._at(reference))
            self._open.discard(reference)
        return self._known[reference]

    def _at(self, reference: str) -> Any:
        part: Any = self._root
        for name in reference.split("/")[1:]:
            key = name.replace("~1", "/").replace("~0", "~")
            if not isinstance(part, dict) or key not in part:
                raise _TooLarge
            part = part[key]
        return part


def _validator(schema: Mapping[str, Any]) -> Any:
    kind: Any = jsonschema_rs.validator_cls_for(dict(schema))
    # Nothing is fetched: a reference to elsewhere is an error, not a download.
    return kind(dict(schema), pattern_options=jsonschema_rs.RegexOptions(), offline=True, validate_formats=False)


def _keywords(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key below and what it holds; the items of lists have no key."""
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


def _spelt(pattern: str) -> str:
    r"""RE2 writes \u0041 as \x{0041}."""
    return _CODE_POINT.sub(lambda match: match[1] or f"\\x{{{match[2]}}}", pattern)


def _main() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (CHECK_CPU_S, CHECK_CPU_S))
    resource.setrlimit(resource.RLIMIT_AS, (_MAX_MEMORY_BYTES, _MAX_MEMORY_BYTES))
    check = json.load(sys.stdin)
    if "pattern" in check:
        found = None if matches(check["pattern"], check["text"]) else "it does not match the pattern"
    else:
        found = misfit(check["schema"], check["value"])
    print(json.dumps(found))


if __name__ == "__main__":
    _main()
