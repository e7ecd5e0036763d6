"""The lines of result files, in the form of each API."""

import secrets
from typing import Any, Literal

import orjson

from cappella.batch.types import Batch, RowEnd
from cappella.types import Json

Left = Literal["expired", "cancelled"]
"""What became of the rows of a batch that have no end."""
_MESSAGES: dict[Left, str] = {
    "expired": "This request could not be executed before the completion window expired.",
    "cancelled": "This request was not executed before the batch was cancelled.",
}


def line(batch: Batch, custom_id: str, end: RowEnd | None, left: Left) -> bytes:
    """The line of one row, with a line feed."""
    value = _message(custom_id, end, left) if batch.api == "anthropic" else _response(custom_id, end, left)
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)


def _response(custom_id: str, end: RowEnd | None, left: Left) -> Json:
    """OpenAI's. A reply with an HTTP error is a response too; `error` is for what had none."""
    head = {"id": f"batch_req_{secrets.token_hex(12)}", "custom_id": custom_id}
    if end is None:
        return {**head, "response": None, "error": {"code": f"batch_{left}", "message": _MESSAGES[left]}}
    response = {"status_code": end.status_code, "request_id": end.request_id, "body": orjson.Fragment(end.body)}
    return {**head, "response": response, "error": None}


def _message(custom_id: str, end: RowEnd | None, left: Left) -> Json:
    """Anthropic's."""
    result: dict[str, Any] = {"type": "expired" if left == "expired" else "canceled"}
    if end and end.is_ok:
        result = {"type": "succeeded", "message": orjson.Fragment(end.body)}
    elif end:
        result = {"type": "errored", "error": orjson.Fragment(end.body)}
    return {"custom_id": custom_id, "result": result}
