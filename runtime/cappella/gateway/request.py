"""Reads requests, and streams replies, with limits on size and time; notices clients that disconnect."""

import asyncio
import logging
import time
import types
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Generator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

from starlette.requests import ClientDisconnect, Request
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from cappella.auth.keys import Key
from cappella.background import background
from cappella.errors import RequestError
from cappella.gateway.body_memory import HeldBody
from cappella.gateway.http_protocol import ABORT
from cappella.telemetry import records
from cappella.threads import joined

CLIENT_CLOSED_REQUEST = 499
MIN_BYTES_PER_S = 16 << 10
"""The slowest reader of a reply that may keep its sequences longer than `client_timeout_s`."""

logger = logging.getLogger("cappella")

T = TypeVar("T")


class ClientGone(Exception):
    """The client closed the connection before the reply."""


class ClientTooSlow(Exception):
    """The client read nothing, or next to nothing, of a reply for too long; its connection is closed."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """A request whose body has arrived, at `arrived_at` of `time.monotonic`.

    `memory` holds that body until the request is admitted. A byte of it is as much work as `work` characters of a text.
    """

    request: Request
    path: str
    key: Key | None
    body: bytes
    wire: dict[str, Any]
    memory: HeldBody
    arrived_at: float
    work: int = 1

    @property
    def key_id(self) -> str | None:
        return self.key.id if self.key else None

    @property
    def work_chars(self) -> int:
        """What reading it is worth, in characters of a text."""
        return self.work * self.memory.size_bytes

    @property
    def waited_s(self) -> float:
        """Seconds since it arrived."""
        return time.monotonic() - self.arrived_at


def caller(request: Request, key: Key | None) -> str:
    """Who sent it: the key, or the client's address on a server without keys."""
    return f"key {key.id}" if key else f"address {request.client.host if request.client else ''}"


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


async def read(request: Request, limit_bytes: int, timeout_s: float, hold: Callable[[int], None]) -> bytes:
    """The body. Raises RequestError if it is larger than `limit_bytes`, or incomplete after `timeout_s`.

    `hold` is called with the size of each piece that arrives, and may refuse it. Raises ClientGone if the client
    disconnects first.
    """
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            async for part in request.stream():
                size += len(part)
                if size > limit_bytes:
                    raise RequestError(f"The body is larger than {limit_bytes} bytes.", code="body_too_large")
                hold(len(part))
                parts.append(part)
    except ClientDisconnect as error:
        raise ClientGone from error
    except TimeoutError as error:
        raise RequestError(f"The body was incomplete after {timeout_s:g} s.", code="body_too_slow") from error
    return await joined(parts)


class Source(Protocol):
    """What generates a reply, and is not generating any more once it is closed."""

    async def aclose(self) -> None: ...


class Stream(StreamingResponse):
    """A streamed reply that ends, together with its source, if the client is too slow a reader for `timeout_s`.

    Then it logs a warning, and the records of the request and its run have the error ClientTooSlow. `source` is what
    generates `content`: it has ended when the reply has, however that ended, also before its first byte. Until then
    `memory` holds the request's body, unless it is released before.
    """

    def __init__(
        self,
        content: AsyncGenerator[bytes, None],
        source: Source,
        timeout_s: float,
        memory: HeldBody | None = None,
        **options: Any,
    ) -> None:
        super().__init__(content, **options)
        self._memory = memory
        if memory:
            memory.outlives_request = True
        self._content = content
        self._source = source
        self._patience = _Patience(timeout_s)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._reply(scope, receive, send)
        finally:
            if self._memory:
                self._memory.release()

    async def _reply(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Closing a generator that has not begun does not close what it would have read.
        async with aclosing(self._source), aclosing(self._content):
            try:
                # Not Starlette's own task group, which would cancel the records of the end as well.
                await unless_gone(Request(scope, receive), self.stream_response(send))
            except ClientGone:
                return
            except ClientTooSlow as error:
                _drop(scope, error)

    async def stream_response(self, send: Send) -> None:
        async def in_time(message: Message) -> None:
            await self._patience.wait_for(send(message), len(message.get("body", b"")))

        await super().stream_response(in_time)


def patient(scope: Scope, send: Send, timeout_s: float) -> Send:
    """`send` for a reply that others make: as with `Stream`, a client that is too slow loses its connection.

    They see that it has left.
    """
    patience = _Patience(timeout_s)

    async def in_time(message: Message) -> None:
        try:
            await patience.wait_for(send(message), len(message.get("body", b"")))
        except ClientTooSlow as error:
            _drop(scope, error)

    return in_time


def _drop(scope: Scope, error: ClientTooSlow) -> None:
    records.current().error = type(error).__name__
    logger.warning("%s: %s", scope["path"], error)
    # Nobody reads what is left in the socket's buffer either.
    (scope.get("extensions") or {}).get(ABORT, lambda: None)()


NO_BUFFERING = {"X-Accel-Buffering": "no"}
"""Proxies hand pieces on as they come."""


def event_stream(frames: AsyncGenerator[bytes, None], timeout_s: float, headers: Mapping[str, str] = {}) -> Stream:
    """A stream of server-sent events."""
    return Stream(frames, frames, timeout_s, media_type="text/event-stream", headers={**NO_BUFFERING, **headers})


async def resumed(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """`first` and then the rest, which is closed with this."""
    try:
        yield first
        async for data in rest:
            yield data
    finally:
        await rest.aclose()


class _Patience:
    """How long one client may keep its reply waiting: `timeout_s` for one piece, and in all.

    Each `MIN_BYTES_PER_S` that it has read give a second back, so that a slow link is enough and a trickle is not.
    """

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._left_s = timeout_s

    async def wait_for(self, sending: Awaitable[None], size: int) -> None:
        """Send a piece of `size` bytes. Raises ClientTooSlow."""
        loop = asyncio.get_running_loop()
        began, steps = loop.time(), sending.__await__()
        try:
            waits_for = next(steps)
        except StopIteration:
            # No timer for a piece that goes out at once, as most do: it would cost a tenth of what a token does.
            pass
        else:
            await self._in_time(_rest_of(steps, waits_for))
        earned_s = size / MIN_BYTES_PER_S - (loop.time() - began)
        self._left_s = min(self._timeout_s, self._left_s + earned_s)

    async def _in_time(self, sending: Awaitable[None]) -> None:
        try:
            async with asyncio.timeout(min(self._timeout_s, self._left_s)):
                await sending
        except TimeoutError as error:
            whole = self._left_s >= self._timeout_s
            how = "nothing" if whole else f"less than {MIN_BYTES_PER_S >> 10} KiB a second"
            raise ClientTooSlow(
                f"the client read {how} for {self._timeout_s:g} s; its connection was closed"
            ) from error


@types.coroutine
def _rest_of(steps: Generator[Any, Any, None], waits_for: object) -> Generator[Any, Any, None]:
    """What is left of something that was begun, and now waits. `yield from` would go on before that is there."""
    while True:
        try:
            got = yield waits_for
        except BaseException as error:  # noqa: BLE001 - such as its cancellation, which it has to see
            go_on = partial(steps.throw, error)
        else:
            go_on = partial(steps.send, got)
        try:
            waits_for = go_on()
        except StopIteration:
            return


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
