"""Connections that a closing server accepts, which asyncio of Python 3.11 forgets without closing them."""

from asyncio.selector_events import BaseSelectorEventLoop
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest


@contextmanager
def closed_with_their_server() -> Iterator[None]:
    """A connection that was accepted in the tick in which its server closes is closed, too."""
    loop: Any = BaseSelectorEventLoop
    make = loop._make_socket_transport

    def make_or_close(self: Any, sock: Any, *arguments: Any, server: Any = None, **more: Any) -> Any:
        if server is not None and not server.sockets:
            sock.close()
            raise ConnectionAbortedError
        return make(self, sock, *arguments, server=server, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_make_socket_transport", make_or_close)
        yield
