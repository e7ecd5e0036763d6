"""Lists page by page: their parameters, and the page as it is sent."""

from collections.abc import Callable, Mapping, Sequence

import orjson
from starlette.responses import Response

from cappella.errors import RequestError
from cappella.threads import off_loop_if_large
from cappella.types import Json

ENTRY_WORK = 2000
"""An entry is as much work as so many characters of a text; a failed batch has a hundred mistakes."""


def limit_of(asked: Mapping[str, str], default: int, most: int) -> int:
    """The parameter `limit`, from 1 to `most`. Raises RequestError."""
    limit = asked.get("limit", str(default))
    if not limit.isascii() or not limit.isdigit() or not 1 <= int(limit[:9]) <= most:
        raise RequestError(f"limit must be a number from 1 to {most}.", "limit")
    return int(limit)


def is_ascending(asked: Mapping[str, str]) -> bool:
    """Whether `order` is `asc`; `desc` is the default. Raises RequestError for anything else."""
    order = asked.get("order", "desc")
    if order not in ("asc", "desc"):
        raise RequestError("order must be asc or desc.", "order")
    return order == "asc"


def unknown_start(name: str) -> RequestError:
    """The error for a page after, or before, what is not in the list."""
    return RequestError(f"{name} must be the id of an item in the list.", name)


def page(left: Sequence[Json], limit: int) -> Json:
    """The first `limit` of what is left of a list."""
    shown = list(left[:limit])
    ends = {"first_id": shown[0]["id"] if shown else None, "last_id": shown[-1]["id"] if shown else None}
    return {"object": "list", "data": shown, **ends, "has_more": len(left) > limit}


async def sent(page: Json | Callable[[], Json], entries: int) -> Response:
    """The reply with a page of so many entries, or with what `page` makes of them."""

    def written() -> bytes:
        return orjson.dumps(page() if callable(page) else page)

    body = await off_loop_if_large(ENTRY_WORK * entries, written)
    return Response(body, media_type="application/json")
