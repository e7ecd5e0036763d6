"""`/v1/messages/batches`: requests for messages that are answered when there is room, as in Anthropic's API."""

import json
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.batch.types import Batch, NewBatch, NewRow
from cappella.config.limits import Limits
from cappella.errors import BatchesUnavailable, BatchRefused, RequestError
from cappella.gateway import pages
from cappella.gateway.batch_access import Access, access
from cappella.gateway.batch_input import NO_STREAM, order_of
from cappella.gateway.batch_types import DeletedMessageBatch, MessageBatch
from cappella.gateway.formats.batches import CUSTOM_ID, MESSAGE_BATCHES, message_batch
from cappella.gateway.formats.request_list import RequestList
from cappella.gateway.limits import require_shallow
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.request import require_json
from cappella.gateway.state import GatewayState
from cappella.gateway.uploads import FORM_WORK, arriving
from cappella.telemetry.audit.actions import OperatorActions
from cappella.threads import off_loop_if_large
from cappella.types import Json

DEFAULT_LISTED = 20
MAX_LISTED = 1000
WINDOW_S = 86_400.0
_ENDPOINT = "/v1/messages"
_ID = re.compile(CUSTOM_ID.replace("$", r"\Z"))


def create_router(current: Callable[[], GatewayState], actions: OperatorActions) -> PlainRoutes:
    router = PlainRoutes(MESSAGE_BATCHES)

    async def asked_batch(request: Request) -> tuple[Access, Batch]:
        asked = await access(current, actions, request, "run", "admin")
        return asked, await asked.batch(request.path_params["batch_id"], "anthropic")

    @router.post("")
    async def create(request: Request) -> MessageBatch:
        asked = await access(current, actions, request, "run")
        require_json(request)
        await asked.admit()
        with actions.recorded("batch.create") as line:
            batch = await _create(asked, request)
            line["batch"] = batch.id
        return message_batch(batch)

    @router.get("")
    async def listed(request: Request) -> Response:
        asked = await access(current, actions, request, "run", "admin")
        return await _listed(asked, request.query_params)

    @router.get("/{batch_id}")
    async def one(request: Request) -> MessageBatch:
        return message_batch((await asked_batch(request))[1])

    @router.post("/{batch_id}/cancel")
    async def cancel(request: Request) -> MessageBatch:
        asked, batch = await asked_batch(request)
        with actions.recorded("batch.cancel", batch=batch.id):
            return message_batch(await asked.store.cancel(batch.id))

    @router.delete("/{batch_id}")
    async def delete(request: Request) -> DeletedMessageBatch:
        asked, batch = await asked_batch(request)
        with actions.recorded("batch.delete", batch=batch.id):
            await asked.store.delete(batch.id)
        return {"id": batch.id, "type": "message_batch_deleted"}

    @router.get("/{batch_id}/results")
    async def results(request: Request) -> Response:
        return await _results(*await asked_batch(request))

    return router


async def _results(asked: Access, batch: Batch) -> Response:
    if batch.output_file_id is None:
        raise BatchRefused(f"{batch.id} has not ended: its results are there once its processing_status is ended.")
    return asked.content(await asked.file(batch.output_file_id, "messages_output"))


async def _create(asked: Access, request: Request) -> Batch:
    """A batch of the requests in the body, which are written to its input file as they arrive."""
    server, settings = asked.state.config.server, asked.settings
    requests = RequestList(server.max_body_bytes, server.limits.values)
    async with asked.store.files.uploading(asked.key_id) as upload:
        rows = _Rows(settings.max_rows, server.limits)

        async def take(data: bytes, is_last: bool = False) -> None:
            def read() -> bytes:
                return b"".join(rows.line(each) for each in requests.read(data, is_last))

            await upload.write(await off_loop_if_large(FORM_WORK * requests.size(data), read))

        await arriving(request, settings.max_file_bytes, server.client_timeout_s, take)
        await take(b"", is_last=True)
        if not rows.rows:
            raise RequestError("requests must have at least one request.", "requests")
        file = await upload.keep("requests.jsonl", "messages", asked.store.retention_s)
    new = NewBatch(asked.key_id, "anthropic", _ENDPOINT, file.id, WINDOW_S)
    try:
        return await asked.store.create(new, rows.rows)
    except BaseException:
        # No client could do it. If it was created after all, it reads the file.
        with suppress(BatchesUnavailable, BatchRefused):
            await asked.store.files.delete(file.id)
        raise


class _Rows:
    """The rows of a batch, and the lines of its input file. Raises RequestError, as Anthropic does not look into `params`."""

    def __init__(self, most: int, limits: Limits) -> None:
        self.rows: list[NewRow] = []
        self._size_bytes = 0
        self._most = most
        self._limits = limits
        self._ids: set[str] = set()

    def line(self, entry: Any) -> bytes:
        """The line of the next request."""
        place = f"requests.{len(self.rows)}"
        custom_id, params = _checked(entry, place, self._limits)
        if custom_id in self._ids:
            raise RequestError(f"{place}.custom_id: {custom_id} is used twice.", f"{place}.custom_id")
        if len(self.rows) >= self._most:
            raise RequestError(
                f"A batch may have {self._most} requests (server.batch.max_rows).", "requests", "too_large"
            )
        self._ids.add(custom_id)
        line = _line({"custom_id": custom_id, "params": params})
        self.rows.append(NewRow(len(self.rows) + 1, custom_id, self._size_bytes, len(line), order_of(params)))
        self._size_bytes += len(line)
        return line


def _checked(entry: Json, place: str, limits: Limits) -> tuple[str, Json]:
    custom_id, params = entry.get("custom_id"), entry.get("params")
    if not isinstance(custom_id, str) or not _ID.match(custom_id):
        message = f"{place}.custom_id must be 1 to 64 letters, digits, hyphens or underscores."
        raise RequestError(message, f"{place}.custom_id")
    if not isinstance(params, dict):
        raise RequestError(f"{place}.params must be an object: the request for a message.", f"{place}.params")
    if params.get("stream"):
        raise RequestError(f"{place}.params: {NO_STREAM}", f"{place}.params.stream")
    try:
        require_shallow(params, limits)
    except RequestError as error:
        raise RequestError(f"{place}.params: {error}", f"{place}.params", error.code) from error
    return custom_id, params


def _line(value: Json) -> bytes:
    try:
        return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:
        # A config may allow more depth than orjson writes.
        return json.dumps(value).encode() + b"\n"


async def _listed(asked: Access, query: Mapping[str, str]) -> Response:
    limit = pages.limit_of(query, DEFAULT_LISTED, MAX_LISTED)
    after, before = query.get("after_id"), query.get("before_id")
    if after and before:
        raise RequestError("Send after_id or before_id, not both.", "before_id")
    found = await asked.store.listed(asked.reader, "anthropic", after or before, limit + 1, newer=bool(before))
    if found is None:
        raise pages.unknown_start("before_id" if before else "after_id")
    # Newest first, whatever the direction: the one too many is at the far end.
    has_more, shown = len(found) > limit, found[-limit:] if before else found[:limit]

    def page() -> Json:
        ends = {"first_id": shown[0].id if shown else None, "last_id": shown[-1].id if shown else None}
        return {"data": [message_batch(each) for each in shown], **ends, "has_more": has_more}

    return await pages.sent(page, len(shown))
