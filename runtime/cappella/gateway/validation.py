"""Validates request bodies; an error names each field that is wrong, at its innermost place, up to ten of them."""

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cappella.config.limits import Limits
from cappella.errors import RequestError
from cappella.gateway.body_encoding import json_object
from cappella.gateway.formats.fields import FusionPlugin
from cappella.gateway.formats.policy import MAX_PROBLEMS, Path, Problem, Reading
from cappella.gateway.limits import require_few_objects, require_within_limits
from cappella.types import Json

Request = TypeVar("Request", bound=BaseModel)

MAX_DETAILS = 64
"""How many mistakes are looked into: a body may have a hundred thousand, and each is compared with the others."""
MAX_COUNTED = 5000
"""Beyond them not even their places are made: for a list of a million wrong texts that would take gigabytes."""
MAX_HINTS = 5
"""For how many unknown fields the nearest name is looked up, which takes a millisecond."""
MAX_NAME_CHARS = 64
"""Of a field that does not exist."""
_TAGS = ("type", "role")
"""Fields that tell the kinds of a union apart."""


def checked_json(body: bytes, limits: Limits) -> tuple[Json, bytes]:
    """The body as a JSON object within the limits, and as bytes that are that object. Raises RequestError."""
    require_few_objects(body, limits)
    value, body = json_object(body)
    require_within_limits(value, limits)
    return value, body


def parse(schema: type[Request], reading: Reading) -> Request:
    """What a policy left of a body, as `schema`. Raises RequestError, which names the fields that are wrong."""
    try:
        parsed = schema.model_validate(reading.body)
    except ValidationError as error:
        if error.error_count() > MAX_COUNTED:
            message = (
                f"The body has {error.error_count()} mistakes, too many to be told: is it what this endpoint takes?"
            )
            raise RequestError(message, code="invalid_value") from None
        details = error.errors(include_url=False, include_input=False)[:MAX_DETAILS]
        found = _innermost([_problem(reading, each) for each in details])
        found = [each for each in found if not _covers(each, reading.problems)]
        unread = error.error_count() - len(details)
        require_none([*reading.problems, *_with_hints(found, schema)], unread)
        raise
    require_none(reading.problems)
    return parsed


def require_none(problems: Sequence[Problem], unread: int = 0) -> None:
    """Raises RequestError that names all problems, up to ten; its `param` and `code` are those of the first.

    `unread` are more of them that nobody has looked into.
    """
    if not problems:
        return
    told = [f"{_shown(each)}: {each.message}" if each.path else each.message for each in problems[:MAX_PROBLEMS]]
    left = len(problems) - len(told) + unread
    more = [f"and {left} more"] if left else []
    raise RequestError("; ".join([*told, *more]), _shown(problems[0]) or None, problems[0].code)


def _shown(problem: Problem) -> str:
    """Where it is; a client may send names of any length."""
    return ".".join(str(each)[:MAX_NAME_CHARS] for each in problem.path)


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


def _problem(reading: Reading, details: ErrorDetails) -> Problem:
    kind, context = details["type"], details.get("ctx", {})
    path = _in_clients_body(reading, tuple(_path_in_body(reading.body, details["loc"], kind == "missing")))
    match kind:
        case "extra_forbidden":
            return Problem(path, _UNKNOWN, "unknown_field")
        case "union_tag_invalid" | "union_tag_not_found":
            tag = str(context["discriminator"]).strip("'")
            at = (*path, tag if tag.isidentifier() else "type")
            known = str(context.get("expected_tags", "")).replace("'", "")
            tag = str(context["tag"])[:MAX_NAME_CHARS]
            return Problem(at, f"{tag!r} is none of {known}" if known else "Field required")
        case "model_type" | "dict_type" | "model_attributes_type":
            return Problem(path, "Input should be an object", _WRONG_TYPE)
    message = details["msg"].removeprefix("Value error, ").replace("valid dictionary", "object")
    return Problem(path, message, _WRONG_TYPE if kind.endswith("_type") else "invalid_value")


_UNKNOWN = "there is no such field"


def _with_hints(problems: Sequence[Problem], schema: type[BaseModel]) -> Iterator[Problem]:
    """The problems; the first unknown fields with the names that they may have meant."""
    hints = 0
    for each in problems:
        if each.message == _UNKNOWN and hints < MAX_HINTS:
            hints += 1
            name = str(each.path[-1])[:MAX_NAME_CHARS]
            close = difflib.get_close_matches(name, _known_names(schema), 1)
            yield replace(each, message=f"{_UNKNOWN}; did you mean {close[0]}?") if close else each
        else:
            yield each


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
