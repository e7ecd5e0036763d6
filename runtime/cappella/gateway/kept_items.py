"""What a request names of kept responses: the conversation that it continues, and single items by their ids."""

from collections.abc import Mapping, Sequence
from typing import Any

from cappella.errors import RequestError
from cappella.gateway.formats.response_output import id_of
from cappella.telemetry.response_store import Conversation, ResponseStore
from cappella.types import Json


async def conversation(store: ResponseStore, response_id: str, key_id: str | None) -> Conversation:
    """The conversation up to this response. Raises RequestError if it is none of this key, or has no answer."""
    found = await store.conversation(response_id, key_id)
    if found is None:
        message = f"No response {response_id[:80]!r} found."
        raise RequestError(message, "previous_response_id", "previous_response_not_found")
    if found.status not in ("completed", "incomplete"):
        raise RequestError(f"{response_id} is {found.status}: it has no answer to continue.", "previous_response_id")
    return found


async def named(store: ResponseStore, items: Sequence[Any], key_id: str | None) -> Mapping[str, Json]:
    """The kept items that references name, by their ids; the policy refuses a reference to what is not found."""
    wanted = {named_by(item) for item in items} - {""}
    found = [await store.output(name, key_id) for name in set(map(_response_of, wanted)) if name]
    return {item["id"]: item for output in found for item in output or () if item["id"] in wanted}


def named_by(item: Any) -> str:
    """The id that a reference names; "" for other items."""
    is_reference = isinstance(item, dict) and item.get("type") == "item_reference"
    return str(item.get("id")) if is_reference else ""


def _response_of(item_id: str) -> str:
    """The id of the response that has the item; "" if none can have it."""
    run_id = item_id.partition("_")[2].partition("-")[0]
    return id_of("resp", run_id) if run_id else ""
