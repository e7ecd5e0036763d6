"""Validates request bodies; an error names the first invalid field."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cappella.config.limits import Limits
from cappella.errors import RequestError
from cappella.gateway.limits import require_within_limits
from cappella.gateway.request import json_object
from cappella.types import Json

Request = TypeVar("Request", bound=BaseModel)


def checked_json(body: bytes, limits: Limits) -> Json:
    """The body as a JSON object within the limits. Raises RequestError."""
    value = json_object(body)
    require_within_limits(value, limits)
    return value


def parse(schema: type[Request], body: Mapping[str, Any]) -> Request:
    """The body as `schema`. Raises RequestError, which names the first invalid field."""
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        first = min(error.errors(include_url=False), key=_rank)
        where = ".".join(_path_in_body(body, first["loc"], first["type"] == "missing"))
        if first["type"] == "extra_forbidden":
            raise RequestError(
                f"{where} is not a field of a request to an ensemble.", where, "unknown_field"
            ) from error
        message = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{where}: {message}" if where else message, where or None) from error


def _rank(problem: ErrorDetails) -> tuple[bool, bool]:
    """Unknown fields first; in a union, the branch whose type fits before the others."""
    return problem["type"] != "extra_forbidden", problem["type"].endswith("_type")


def _path_in_body(body: Any, where: Sequence[int | str], missing: bool) -> Iterator[str]:
    """The parts of `where` that are in the body, without the names that pydantic gives to branches of a union."""
    for number, part in enumerate(where):
        is_key = isinstance(body, Mapping) and part in body
        is_index = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_key or is_index:
            body = body[part]
            yield str(part)
        elif missing and number == len(where) - 1:
            yield str(part)
