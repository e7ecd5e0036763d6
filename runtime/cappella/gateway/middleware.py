"""ASGI middleware: one record for each request, and the end of connections whose request was answered too early."""

import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cappella.gateway.http_protocol import IS_WHOLE
from cappella.telemetry import records
from cappella.telemetry.records import RequestRecord

_TRACE_CONTEXT = (b"traceparent", b"tracestate")
_INTERNAL_ERROR = 500


class RecordRequests:
    """Makes the record of each request, and hands it to `observe` when the reply has ended or broken off."""

    def __init__(self, app: ASGIApp, observe: Callable[[RequestRecord], None]) -> None:
        self._app = app
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        context = {name.decode(): value.decode("latin-1") for name, value in scope["headers"] if name in _TRACE_CONTEXT}
        record = RequestRecord(scope["method"], scope["path"], context)
        records.begin(record)

        async def send_recorded(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status_code = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_recorded)
        except Exception as error:
            # An outer middleware makes the reply to an unexpected error.
            record.status_code, record.error = record.status_code or _INTERNAL_ERROR, type(error).__name__
            raise
        finally:
            record.replied_at = time.monotonic()
            record.route = getattr(scope.get("route"), "path", None)
            self._observe(record)


class CloseUnfinished:
    """Closes the connection after a reply that came before its request was whole: nothing times what is left of that."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_whole = (scope.get("extensions") or {}).get(IS_WHOLE, lambda: True)

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and not is_whole():
                message = {**message, "headers": [*message["headers"], (b"connection", b"close")]}
            await send(message)

        await self._app(scope, receive, send_closing)
