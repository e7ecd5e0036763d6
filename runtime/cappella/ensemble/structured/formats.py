"""Whether an answer has the shape that the caller asked for."""

import json
from typing import Any

import jsonschema
import regex

from cappella.ensemble.structured import schemas
from cappella.ensemble.structured.json_value import value_of
from cappella.types import Form


class InvalidFormat(ValueError):
    """The form itself asks for what cannot be checked; `str()` says what."""


def problem(form: Form | None, text: str) -> str | None:
    """What is wrong with the text, or None. A grammar is the engine's own business: it cannot be left unfinished."""
    if form is None:
        return None
    try:
        return _problem(form, text)
    except schemas.CheckTimeout:
        return f"whether it fits could not be found out in {schemas.CHECK_S:g} s"


def _problem(form: Form, text: str) -> str | None:
    kind, wanted = _kind(form)
    match kind:
        case "text" | "grammar" | "structural_tag":
            return None
        case "choice":
            return None if text in wanted else f"{text[:40]!r} is not one of the choices"
        case "regex":
            return None if schemas.matches(wanted, text, whole=True) else "it does not match the pattern"
    try:
        value = value_of(text)
    except ValueError as error:
        return f"it is not JSON: {error}"
    if kind == "json_object":
        return None if isinstance(value, dict) else "it is no JSON object"
    misfit = schemas.misfit(wanted, value)
    return None if misfit is None else f"it does not fit the schema: {misfit[:200]}"


def require_checkable(form: Form | None) -> None:
    """Raises BadForm for a schema or a pattern that is none, or that could not be checked."""
    if form is None:
        return
    what = "regex" if form.value.get("regex") is not None else "schema"
    try:
        kind, wanted = _kind(form)
        if kind == "regex":
            regex.compile(wanted)
        elif kind == "json_schema":
            schemas.require_usable(wanted)
    except (regex.error, jsonschema.SchemaError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise InvalidFormat(f"the {what} is none: {getattr(error, 'message', error)}") from error


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
