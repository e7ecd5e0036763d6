"""Whether an answer has the shape that the caller asked for."""

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from cappella.ensemble.structured import schemas
from cappella.ensemble.structured.json_value import value_of
from cappella.types import Form

MAX_COST_HERE = 500_000
"""Of a check in the event loop: keywords times characters, which takes 20 ms at the very most."""
_APART = ThreadPoolExecutor(2, "form-checks")
"""Each thread waits for one check's process: so many run at once, whatever clients ask for."""


class InvalidFormat(ValueError):
    """The form itself asks for what cannot be checked; `str()` says what."""


async def problem(form: Form | None, text: str) -> str | None:
    """What is wrong with the text, or None. A grammar is the engine's own business: it cannot be left unfinished."""
    if form is None:
        return None
    kind, wanted = _kind(form)
    match kind:
        case "text" | "grammar" | "structural_tag":
            return None
        case "choice":
            return None if text in wanted else f"{text[:40]!r} is not one of the choices"
        case "regex":
            return await _pattern_problem(wanted, text)
    try:
        value = value_of(text)
    except ValueError as error:
        return f"it is not JSON: {error}"
    if kind == "json_object":
        return None if isinstance(value, dict) else "it is no JSON object"
    return await _schema_problem(wanted, value, len(text))


async def _pattern_problem(pattern: str, text: str) -> str | None:
    if schemas.require_pattern(pattern) * len(text) > MAX_COST_HERE:
        return await _check_apart({"pattern": pattern, "text": text})
    # Other runs have their turn between two checks.
    await asyncio.sleep(0)
    return None if schemas.matches(pattern, text) else "it does not match the pattern"


async def _schema_problem(schema: Any, value: Any, size: int) -> str | None:
    # To make a schema ready to check with is work as well, even for the shortest text.
    limit = MAX_COST_HERE / (size + 50)
    if schemas.cost(schema, limit) > limit:
        misfit = await _check_apart({"schema": schema, "value": value})
    else:
        await asyncio.sleep(0)
        misfit = schemas.misfit(schema, value)
    return None if misfit is None else f"it does not fit the schema: {misfit[:200]}"


async def _check_apart(check: dict[str, Any]) -> str | None:
    try:
        return await asyncio.get_running_loop().run_in_executor(_APART, schemas.run_apart, check)
    except schemas.CheckTimeout:
        return f"whether it fits could not be found out in {schemas.CHECK_CPU_S} s"


def require_checkable(form: Form | None) -> None:
    """Raises BadForm for a schema or a pattern that is none, or that could not be checked."""
    if form is None:
        return
    what = "regex" if form.value.get("regex") is not None else "schema"
    try:
        kind, wanted = _kind(form)
        if kind == "regex" and schemas.require_pattern(wanted) > schemas.MAX_PATTERN_STEPS:
            raise ValueError("it is too large")
        if kind == "json_schema":
            schemas.require_usable(wanted)
    except (TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidFormat(f"the {what} cannot be used: {error}") from error


def _kind(form: Form) -> tuple[str, Any]:
    """What is asked for: text, json_object, json_schema, or one of vLLM's own kinds, with its value."""
    value = form.value
    if form.field == "response_format":
        kind = value["type"]
        return kind, value["json_schema"].get("schema", {}) if kind == "json_schema" else None
    if value.get("json_object"):
        return "json_object", None
    if (schema := value.get("json")) is not None:
        return "json_schema", json.loads(schema) if isinstance(schema, str) else schema
    kind = next(name for name in ("choice", "regex", "grammar", "structural_tag") if value.get(name) is not None)
    return kind, value[kind]
