"""Reads requests, and streams replies, with limits on size and time; notices clients that disconnect."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Coroutine
from contextlib import aclosing
from typing import Any, TypeVar

import orjson
from fastapi import Request
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope, Send

from cappella.background import background
from cappella.errors import RequestError
from cappella.gateway.http_protocol import ABORT
from cappella.telemetry import records

CLIENT_CLOSED_REQUEST = 499

logger = logging.getLogger("cappella")

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection before the reply."""


class ClientTooSlow(Exception):
    """The client read nothing of a reply for too long; its connection is closed."""


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`. Cancels it and raises ClientGone if the client disconnects first."""
    async with background(work) as task, background(_disconnected(request)) as gone:
        either: set[asyncio.Future[Any]] = {task, gone}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGone
        return task.result()


def credentials(request: Request) -> tuple[str | None, str | None]:
    """The headers that may hold a key: `Authorization` and `x-api-key`."""
    return request.headers.get("authorization"), request.headers.get("x-api-key")


def require_json(request: Request) -> None:
    """Raises RequestError for any other Content-Type, or none.

    Browsers let pages of any origin post other types without a preflight.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        message = f"The Content-Type is {kind[:100] or 'missing'}: send Content-Type: application/json."
        raise RequestError(message, code="unsupported_media_type")


async def read(request: Request, limit_bytes: int, timeout_s: float) -> bytes:
    """The body. Raises RequestError if it is larger than `limit_bytes`, or incomplete after `timeout_s`.

    Raises ClientGone if the client disconnects first.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise RequestError(f"The body is larger than {limit_bytes} bytes.", code="body_too_large")
                parts.append(part)
    except ClientDisconnect as error:
        raise ClientGone from error
    except TimeoutError as error:
        raise RequestError(f"The body was incomplete after {timeout_s:g} s.", code="body_too_slow") from error
    return b"".join(parts)


class Stream(StreamingResponse):
    """A streamed reply that ends, together with its source, if the client reads nothing for `timeout_s`.

    It logs a warning, and the records of the request and its run have the error ClientTooSlow.
    """

    def __init__(self, content: AsyncGenerator[bytes, None], timeout_s: float, **options: Any) -> None:
        super().__init__(content, **options)
        self._content = content
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._content):
            try:
                await super().__call__(scope, receive, send)
            except ClientTooSlow as error:
                records.current().error = type(error).__name__
                logger.warning("%s: %s", scope["path"], error)
                # Nobody reads what is left in the socket's buffer either.
                (scope.get("extensions") or {}).get(ABORT, lambda: None)()

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Message) -> None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await send(message)
            except TimeoutError as error:
                raise ClientTooSlow(
                    f"the client read nothing for {self._timeout_s:g} s; its connection was closed"
                ) from error

        await super().stream_response(in_time)


def json_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object. Raises RequestError for anything else."""
    try:
        value = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise RequestError(f"The body is not JSON: {error}.", code="invalid_json") from error
    if not isinstance(value, dict):
        raise RequestError("The body must be a JSON object.", code="invalid_json")
    return value


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
