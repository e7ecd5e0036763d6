"""The tools of documents, and the arguments that a model gives them."""

import re
from collections.abc import Sequence

from cappella.errors import CappellaError
from cappella.tools.base import Tool
from cappella.types import Json

MAX_LIMIT = 10
DEFAULT_LIMIT = 5
MAX_QUERY_CHARS = 2000
_PLACE = re.compile(r"(\d{1,9})(?:\s*[-\u2013]\s*(\d{1,9}))?")


class BadArguments(CappellaError):
    """A model's arguments are wrong; `str(error)` tells it what is right."""


def tools(server: str, most: int) -> Sequence[Tool]:
    """The tools `search`, which gives at most so many passages, and `read` of the documents of this name."""
    query = {"type": "string", "description": "A question or words to look for."}
    limit = {"type": "integer", "minimum": 1, "maximum": most, "default": most}
    path = {"type": "string", "description": "The path of a file, as search gives it."}
    place = {
        "type": "string",
        "description": "Where in the file: a page, lines, rows or paragraphs, as search gives it; by default the beginning.",
    }
    return (
        Tool(server, "search", f"Search the documents of {server} and get passages with their places, then some that name what these name.", _object(["query"], query=query, limit=limit)),
        Tool(server, "read", f"Read a file of {server} around a place.", _object(["path"], path=path, place=place)),
    )  # fmt: skip


def _object(required: Sequence[str], **properties: Json) -> Json:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def of_search(given: Json, most: int) -> tuple[str, int]:
    """The query, and how many passages to give, at most `most`. Raises BadArguments."""
    query = _text(given, "query", "words to look for")
    limit = given.get("limit")
    if limit is None:
        return query, most
    if isinstance(limit, bool) or not isinstance(limit, int) or not 1 <= limit <= MAX_LIMIT:
        raise BadArguments(f"limit must be a whole number from 1 to {MAX_LIMIT}.")
    return query, min(limit, most)


def of_read(given: Json) -> tuple[str, tuple[int, int] | None]:
    """The path, and the first and last page, line, row or paragraph. Raises BadArguments."""
    path, place = _text(given, "path", "the path of a file"), given.get("place")
    if place is None or place == "":
        return path, None
    numbers = _PLACE.search(str(place)) if isinstance(place, str | int) else None
    if not numbers:
        raise BadArguments("place must be as search gives it, such as page 3 or lines 10-14.")
    first, last = int(numbers[1]), int(numbers[2] or numbers[1])
    return path, (min(first, last), max(first, last))


def _text(given: Json, name: str, meaning: str) -> str:
    value = given.get(name)
    if not isinstance(value, str) or not value.strip():
        raise BadArguments(f"{name} is missing: {meaning}, as a string.")
    # A half of a character has no place in a database.
    return value[:MAX_QUERY_CHARS].encode("utf-8", "replace").decode()
