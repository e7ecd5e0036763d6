"""Closes connections whose client still sends, so that it reads the reply before it learns of the close."""

import asyncio
from collections.abc import Callable
from typing import Any

LINGER_S = 2.0
"""How long the rest of a request is read, and thrown away, after its reply."""


class LingeringTransport:
    """A transport whose `close` waits for the client while its request `is_whole` not yet.

    To close at once would reset the connection, and the client might lose the reply that says why.
    """

    def __init__(
        self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, is_whole: Callable[[], bool]
    ) -> None:
        self._transport = transport
        self._loop = loop
        self._is_whole = is_whole
        self._closing: asyncio.TimerHandle | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def close(self) -> None:
        if self._closing or self._transport.is_closing():
            return
        if self._is_whole():
            self._transport.close()
            return
        self._closing = self._loop.call_later(LINGER_S, self._transport.close)
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self._transport.resume_reading()

    def is_closing(self) -> bool:
        return self._closing is not None or self._transport.is_closing()

    def closed(self) -> None:
        """The connection is lost."""
        if self._closing:
            self._closing.cancel()
