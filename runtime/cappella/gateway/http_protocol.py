"""HTTP/1.1 connections with limits on a request's head and rest, and on the client's pace, which uvicorn does not have."""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from cappella.gateway.connection_limits import ConnectionLimits
from cappella.gateway.lingering import LingeringTransport

MAX_HEAD_BYTES = 64 << 10
HEAD_TIMEOUT_S = 20.0
STALL_S = 60.0
MIN_READ_BYTES = 64 << 10
"""What a client must read in `STALL_S` of a reply that was written as a whole."""
ABORT = "cappella.abort"
"""The key in a request's `extensions` of a function that aborts its connection."""
IS_WHOLE = "cappella.is_whole"
"""The key in a request's `extensions` of a function that tells whether all of the request has arrived."""


def _refusal(status: bytes, text: bytes) -> bytes:
    head = b"HTTP/1.1 %b\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
    return head % (status, len(text)) + text


_TOO_LARGE = _refusal(b"431 Request Header Fields Too Large", b"The request's head is large.")
_TOO_MANY = _refusal(b"503 Service Unavailable", b"Too many connections are open.")


def connections(limits: ConnectionLimits) -> Callable[..., asyncio.Protocol]:
    """Makes the connections of one server, of which as many may be open as `limits` say."""
    return partial(Connection, limits=limits)


class Connection(HttpToolsProtocol):
    """Closes if a request has more than `MAX_HEAD_BYTES` beside its body, or no complete head after `HEAD_TIMEOUT_S`.

    Also if the reply came before the request was whole; if the client does not read its reply; and if `limits` say so.
    """

    def __init__(self, *arguments: Any, limits: ConnectionLimits, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._limits = limits
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._stall_timer: asyncio.TimerHandle | None = None
        self._lingering: LingeringTransport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._lingering = LingeringTransport(transport, self.loop, lambda: self._request_is_whole)
        super().connection_made(cast(asyncio.Transport, self._lingering))
        self._head_timer = self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)
        self._stall_timer = self.loop.call_later(STALL_S, self._require_progress, 0)
        if not self._limits.admit(self, self.client[0] if self.client else ""):
            self.transport.write(_TOO_MANY)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self._limits.forget(self)
        self._lingering.closed()
        self._cancel_head_timer()
        if self._stall_timer:
            self._stall_timer.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self.is_idle:
            # Blank lines before a head end the keep-alive time, too, and begin no request.
            self._start_head_timer()
        self._head_bytes += len(data)
        super().data_received(data)
        if self._head_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    @property
    def is_idle(self) -> bool:
        """Whether it waits for a request's head."""
        return self.cycle is None or (self.cycle.response_complete and not self.cycle.more_body)

    @property
    def _request_is_whole(self) -> bool:
        return self.cycle is None or not self.cycle.more_body

    def on_message_begin(self) -> None:
        self._start_head_timer()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._cancel_head_timer()
        super().on_headers_complete()
        cycle = self.cycle
        # Its task has not begun yet.
        extensions = {ABORT: self.transport.abort, IS_WHOLE: lambda: not cycle.more_body}
        cast(dict[str, Any], cycle.scope)["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        self._head_bytes -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._head_bytes = 0
        super().on_message_complete()

    def _unsupported_upgrade_warning(self) -> None:
        """Refuses upgrades with a body: the parser would never read it."""
        if self.cycle.more_body:
            self.send_400_response("This server supports HTTP/1.1 only: send no Upgrade header.")

    def _start_head_timer(self) -> None:
        self._head_timer = self._head_timer or self.loop.call_later(HEAD_TIMEOUT_S, self.transport.close)

    def _cancel_head_timer(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None

    def _require_progress(self, unread_before: int) -> None:
        """Abort if nobody reads what is left of a complete reply: it would stay in memory."""
        unread = self.transport.get_write_buffer_size()
        is_written = self.transport.is_closing() or self.is_idle
        if is_written and unread_before and unread > max(0, unread_before - MIN_READ_BYTES):
            self.transport.abort()
        else:
            self._stall_timer = self.loop.call_later(STALL_S, self._require_progress, unread if is_written else 0)
