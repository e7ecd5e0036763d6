"""`/v1/files`: the files of batches, uploaded, listed, read and deleted as in OpenAI's API."""

from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response

from cappella.errors import RequestError
from cappella.gateway import pages
from cappella.gateway.batch_access import FILE_PURPOSES, Access, access
from cappella.gateway.batch_types import DeletedFile, FileObject
from cappella.gateway.formats.batches import MAX_LIFETIME_S, MIN_LIFETIME_S, file_object
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.state import GatewayState
from cappella.gateway.uploads import receive_form
from cappella.telemetry.audit.actions import OperatorActions
from cappella.types import Json

PATH = "/v1/files"
MAX_LISTED = 10_000
_ANCHOR, _SECONDS = "expires_after[anchor]", "expires_after[seconds]"


def create_router(current: Callable[[], GatewayState], actions: OperatorActions) -> PlainRoutes:
    router = PlainRoutes(PATH)

    @router.post("")
    async def upload(request: Request) -> FileObject:
        asked = await access(current, actions, request, "run")
        await asked.admit()
        return await _upload(asked, request)

    @router.get("")
    async def listed(request: Request) -> Response:
        return await _listed(await access(current, actions, request, "run", "admin"), request.query_params)

    @router.get("/{file_id}")
    async def one(request: Request) -> FileObject:
        asked = await access(current, actions, request, "run", "admin")
        return file_object(await asked.file(request.path_params["file_id"]))

    @router.get("/{file_id}/content")
    async def content(request: Request) -> Response:
        asked = await access(current, actions, request, "run", "admin")
        return asked.content(await asked.file(request.path_params["file_id"]))

    @router.delete("/{file_id}")
    async def delete(request: Request) -> DeletedFile:
        asked = await access(current, actions, request, "run", "admin")
        file = await asked.file(request.path_params["file_id"])
        with actions.recorded("file.delete", file=file.id):
            await asked.store.files.delete(file.id)
        return {"id": file.id, "object": "file", "deleted": True}

    return router


async def _upload(asked: Access, request: Request) -> FileObject:
    most, kept_s = asked.settings.max_file_bytes, asked.store.retention_s
    async with asked.store.files.uploading(asked.key_id) as arriving:

        async def take(data: bytes) -> None:
            if arriving.size_bytes + len(data) > most:
                message = f"The file is larger than {most} bytes (server.batch.max_file_bytes)."
                raise RequestError(message, "file", "body_too_large")
            await arriving.write(data)

        form = await receive_form(request, most, asked.state.config.server.client_timeout_s, take)
        _require_batch(form.fields)
        lifetime_s = min(_lifetime_s(form.fields) or kept_s, kept_s)
        return file_object(await arriving.keep(form.filename or "", "batch", lifetime_s))


async def _listed(asked: Access, query: Mapping[str, str]) -> Response:
    limit, after = pages.limit_of(query, MAX_LISTED, MAX_LISTED), query.get("after")
    purposes = [each for each in FILE_PURPOSES if query.get("purpose", each) == each]
    ascending = pages.is_ascending(query)
    found = await asked.store.files.listed(asked.reader, purposes, after, limit + 1, ascending)
    if found is None:
        raise pages.unknown_start("after")

    def page() -> Json:
        return pages.page([dict(file_object(each)) for each in found], limit)

    return await pages.sent(page, len(found))


def _require_batch(fields: Mapping[str, str]) -> None:
    if (purpose := fields.get("purpose")) != "batch":
        told = "is missing" if purpose is None else f"is {purpose[:40]!r}"
        raise RequestError(f"purpose {told}: this server keeps files of batches only, purpose: batch.", "purpose")


def _lifetime_s(fields: Mapping[str, str]) -> int | None:
    """How long the client wants the file kept. Raises RequestError."""
    anchor, seconds = fields.get(_ANCHOR), fields.get(_SECONDS)
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise RequestError("expires_after.anchor must be created_at.", "expires_after.anchor")
    is_number = seconds is not None and seconds.isascii() and seconds.isdigit()
    if not is_number or not MIN_LIFETIME_S <= int((seconds or "")[:9]) <= MAX_LIFETIME_S:
        message = f"expires_after.seconds must be a number from {MIN_LIFETIME_S} to {MAX_LIFETIME_S}."
        raise RequestError(message, "expires_after.seconds")
    return int(seconds or "")
