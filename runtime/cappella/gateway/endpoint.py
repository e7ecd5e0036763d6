"""The form of the tables of endpoints: `endpoints.py` has them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from cappella.types import Json

BYTES: Json = {"type": "string", "format": "binary"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint whose body, if it `takes` one, is of these media types, each with its schema. `reply` is the type of its
    JSON reply, or the media type of another; `others` are further statuses with the same reply; `refuses` its own error
    codes; `further` are other methods of the path.
    """

    summary: str
    reply: Any
    scope: str | None = None
    method: str = "get"
    others: tuple[int, ...] = ()
    refuses: tuple[str, ...] = ()
    parameters: tuple[Json, ...] = ()
    ok: int = 200
    further: tuple["Endpoint", ...] = ()
    takes: Mapping[str, Json | type[BaseModel]] = field(default_factory=dict)


def limit_parameter(most: int) -> Json:
    return {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": most}}


def page_parameters(most: int) -> tuple[Json, ...]:
    order: Json = {"name": "order", "in": "query", "schema": {"enum": ["asc", "desc"]}}
    return order, limit_parameter(most), {"name": "after", "in": "query", "schema": {"type": "string"}}


def in_path(name: str) -> Json:
    """A parameter in the path."""
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
