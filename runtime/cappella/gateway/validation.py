"""Validates request bodies; an error names each field that is wrong, at its innermost place, up to ten of them."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cappella.config.limits import Limits
from cappella.errors import RequestError
from cappella.gateway.body_encoding import json_object
from cappella.gateway.formats.fields import FusionPlugin
from cappella.gateway.formats.policy import MAX_PROBLEMS, Path, Problem, Reading
from cappella.gateway.limits import require_within_limits
from cappella.types import Json

Request = TypeVar("Request", bound=BaseModel)

_TAGS = ("type", "role")
"""Fields that tell the kinds of a union apart."""


def checked_json(body: bytes, limits: Limits) -> tuple[Json, bytes]:
    """The body as a JSON object within the limits, and as bytes that are that object. Raises RequestError."""
    value, body = json_object(body)
    require_within_limits(value, limits)
    return value, body


def parse(schema: type[Request], reading: Reading) -> Request:
    """What a policy left of a body, as `schema`. Raises RequestError, which names the fields that are wrong."""
    try:
        parsed = schema.model_validate(reading.body)
    except ValidationError as error:
        known = _known_names(schema)
        found = _innermost([_problem(reading, known, each) for each in error.errors(include_url=False)])
        require_none([*reading.problems, *(each for each in found if not _covers(each, reading.problems))])
        raise
    require_none(reading.problems)
    return parsed


def require_none(problems: Sequence[Problem]) -> None:
    """Raises RequestError that names all problems, up to ten; its `param` and `code` are those of the first."""
    if not problems:
        return
    told = [f"{each.where}: {each.message}" if each.path else each.message for each in problems[:MAX_PROBLEMS]]
    more = [f"and {len(problems) - MAX_PROBLEMS} more"] if len(problems) > MAX_PROBLEMS else []
    raise RequestError("; ".join([*told, *more]), problems[0].where or None, problems[0].code)


def _innermost(problems: Sequence[Problem]) -> list[Problem]:
    """One problem for each place, and none that stands above another: of a union, the kind that fits best is told of."""
    by_path: dict[Path, Problem] = {}
    for each in sorted(problems, key=lambda each: each.code == _WRONG_TYPE):
        kept = by_path.get(each.path)
        if kept is None:
            by_path[each.path] = each
        elif kept.code == each.code == _WRONG_TYPE and each.message not in kept.message:
            by_path[each.path] = Problem(
                each.path, f"{kept.message} or {each.message.removeprefix('Input should be ')}", _WRONG_TYPE
            )
    return [
        Problem(each.path, each.message, "invalid_value" if each.code == _WRONG_TYPE else each.code)
        for each in by_path.values()
        if not _covers(each, list(by_path.values()))
    ]


def _covers(problem: Problem, others: Sequence[Problem]) -> bool:
    """Whether another problem is found further inside; one of the whole request is not what is told first."""
    depth = len(problem.path)
    return any(len(each.path) > depth and each.path[:depth] == problem.path for each in others)


_WRONG_TYPE = "wrong_type"
"""Of a value that may be right for another kind of a union."""


def _problem(reading: Reading, known: Collection[str], details: ErrorDetails) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    path = _in_clients_body(reading, tuple(_path_in_body(reading.body, details["loc"], kind == "missing")))
    match kind:
        case "extra_forbidden":
            return Problem(path, _did_you_mean(str(path[-1]), known), "unknown_field")
        case "union_tag_invalid" | "union_tag_not_found":
            tag = str(context["discriminator"]).strip("'")
            at = (*path, tag if tag.isidentifier() else "type")
            known = str(context.get("expected_tags", "")).replace("'", "")
            return Problem(at, f"{context['tag']!r} is none of {known}" if known else "Field required")
        case "model_type" | "dict_type" | "model_attributes_type":
            return Problem(path, "Input should be an object", _WRONG_TYPE)
    message = details["msg"].removeprefix("Value error, ").replace("valid dictionary", "object")
    return Problem(path, message, _WRONG_TYPE if kind.endswith("_type") else "invalid_value")


def _did_you_mean(name: str, known: Collection[str]) -> str:
    close = difflib.get_close_matches(name, known, 1)
    return f"there is no such field; did you mean {close[0]}?" if close else "there is no such field"


@cache
def _known_names(schema: type[BaseModel]) -> Collection[str]:
    """What a typo may have meant: an option of `fusion`, or in a schema without one its own fields, at any depth."""
    if "fusion" in schema.model_fields:
        return FusionPlugin.model_fields
    schemas = schema.model_json_schema()
    return {name for each in (schemas, *schemas.get("$defs", {}).values()) for name in each.get("properties", {})}


def _in_clients_body(reading: Reading, path: Path) -> Path:
    """The path, with indexes in lists as the client sent them, before some entries were dropped."""
    found: list[int | str] = []
    for part in path:
        places = reading.places.get(tuple(found)) if isinstance(part, int) else None
        found.append(places[part] if places is not None and isinstance(part, int) and part < len(places) else part)
    return tuple(found)


def _path_in_body(body: Any, where: Sequence[int | str], missing: bool) -> Iterator[int | str]:
    """The parts of `where` that are in the body, without the names that pydantic gives to branches of a union."""
    is_new = True
    for number, part in enumerate(where):
        if isinstance(body, Mapping) and is_new and part in [body.get(tag) for tag in _TAGS]:
            # The kind of a union, which may also be the name of a field, such as `text`.
            is_new = False
            continue
        is_key = isinstance(body, Mapping) and part in body
        is_index = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_key or is_index:
            body, is_new = body[part], True
            yield part
        elif missing and number == len(where) - 1:
            yield part
