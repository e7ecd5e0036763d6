"""Checks an answer against the output format that the caller requested."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cappella.ensemble.structured import schemas
from cappella.ensemble.structured.json_value import parse_json
from cappella.types import OutputFormat

MAX_INLINE_COST = 500_000
"""The most expensive check done in the event loop, in keywords times characters: 20 ms at most."""
_SUBPROCESS_WAITERS = ThreadPoolExecutor(2, "format-checks")
"""Each thread waits for the process of one expensive check, so that no more of them run at once."""


class InvalidFormat(ValueError):
    """The requested format itself is invalid or cannot be checked; `str()` says why."""


async def violation(output_format: OutputFormat | None, text: str) -> str | None:
    """How the text violates the format; None if it does not. Grammars and structural tags are left to the engine."""
    if output_format is None:
        return None
    kind, value = _kind(output_format)
    match kind:
        case "text" | "grammar" | "structural_tag":
            return None
        case "choice":
            return None if text in value else f"{text[:40]!r} is not one of the choices"
        case "regex":
            return await _pattern_violation(value, text)
    try:
        parsed = parse_json(text)
    except ValueError as error:
        return f"it is not JSON: {error}"
    if kind == "json_object":
        return None if isinstance(parsed, dict) else "it is not a JSON object"
    return await _schema_violation(value, parsed, len(text))


async def _pattern_violation(pattern: str, text: str) -> str | None:
    if schemas.pattern_steps(pattern) * len(text) > MAX_INLINE_COST:
        return await _check_in_subprocess({"pattern": pattern, "text": text})
    # Let other runs proceed between two checks.
    await asyncio.sleep(0)
    return None if schemas.matches(pattern, text) else "it does not match the pattern"


async def _schema_violation(schema: Any, value: Any, size: int) -> str | None:
    # 50 characters more, since compiling the schema costs time even for the shortest text.
    limit = MAX_INLINE_COST / (size + 50)
    if schemas.cost(schema, limit) > limit:
        error = await _check_in_subprocess({"schema": schema, "value": value})
    else:
        await asyncio.sleep(0)
        error = schemas.violation(schema, value)
    return None if error is None else f"it does not match the schema: {error[:200]}"


async def _check_in_subprocess(check: dict[str, Any]) -> str | None:
    try:
        return await asyncio.get_running_loop().run_in_executor(_SUBPROCESS_WAITERS, schemas.check_in_subprocess, check)
    except schemas.CheckTimeout:
        return f"checking its format took over {schemas.CHECK_CPU_S} s"


def require_checkable(output_format: OutputFormat | None) -> None:
    """Raises InvalidFormat for a schema or a pattern that is invalid or cannot be checked."""
    if output_format is None:
        return
    what = "regex" if output_format.value.get("regex") is not None else "schema"
    try:
        kind, value = _kind(output_format)
        if kind == "regex" and schemas.pattern_steps(value) > schemas.MAX_PATTERN_STEPS:
            raise ValueError("it is too large")
        if kind == "json_schema":
            schemas.require_usable(value)
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidFormat(f"the {what} cannot be used: {error}") from error


def _kind(output_format: OutputFormat) -> tuple[str, Any]:
    """The kind of format (text, json_object, json_schema, or one of vLLM's own) and its schema, pattern or choices."""
    value = output_format.value
    if output_format.field == "response_format":
        kind = value["type"]
        return kind, value["json_schema"].get("schema", {}) if kind == "json_schema" else None
    if value.get("json_object"):
        return "json_object", None
    if (schema := value.get("json")) is not None:
        return "json_schema", json.loads(schema) if isinstance(schema, str) else schema
    kind = next(name for name in ("choice", "regex", "grammar", "structural_tag") if value.get(name) is not None)
    return kind, value[kind]
