"""A body as the form that it should have; of what does not fit, the first field is named."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from cappella.errors import RequestError

Request = TypeVar("Request", bound=BaseModel)


def parse(schema: type[Request], body: Mapping[str, Any]) -> Request:
    """Raises RequestError that names the first field that is wrong."""
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        first = min(error.errors(include_url=False), key=_rank)
        where = ".".join(_spelt(body, first["loc"], first["type"] == "missing"))
        if first["type"] == "extra_forbidden":
            raise RequestError(f"{where} is not a field that an ensemble takes.", where, "unknown_field") from error
        message = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{where}: {message}" if where else message, where or None) from error


def _rank(problem: ErrorDetails) -> tuple[bool, bool]:
    """Unknown fields first; of a union, the branch whose type fits before those whose type does not."""
    return problem["type"] != "extra_forbidden", problem["type"].endswith("_type")


def _spelt(body: Any, where: Sequence[int | str], missing: bool) -> Iterator[str]:
    """`where` without the names that pydantic gives to a union's branches: only what stands in the body."""
    for number, part in enumerate(where):
        is_key = isinstance(body, Mapping) and part in body
        is_index = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_key or is_index:
            body = body[part]
            yield str(part)
        elif missing and number == len(where) - 1:
            yield str(part)
