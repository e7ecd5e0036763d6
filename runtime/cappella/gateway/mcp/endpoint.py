"""`/mcp`: the tools of `cappella mcp` over HTTP, under the same keys, limits and audit log as the endpoints that they call."""

import asyncio
import importlib
import importlib.util
import logging
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from cappella.errors import ConfigError
from cappella.gateway.limits import require_few_values
from cappella.gateway.mcp.loopback import Loopback
from cappella.gateway.model_list import PREFIX
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.request import patient
from cappella.gateway.state import GatewayState
from cappella.threads import off_loop_if_large
from cappella.tools.mcp.sdk_log import leave_out_texts

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

PATH = "/mcp"
MAX_VALUES = 2000
"""Of one message: the SDK reads it in the event loop, value by value, and no call of a tool here has more than a few."""
_DEFAULT = "default"


class McpEndpoint:
    """The endpoint. Requests are independent of each other: there are no sessions that a restart could lose.

    A call ends when its client closes the connection. A notification that cancels it, which clients before the protocol of
    2026 send, could be any client's, and is ignored.
    """

    def __init__(self, current: Callable[[], GatewayState]) -> None:
        self._current = current
        self._manager: StreamableHTTPSessionManager | None = None
        self._starting = asyncio.Lock()
        self._stopping = asyncio.Event()
        self._serving: asyncio.Task[None] | None = None

    @staticmethod
    def is_installed() -> bool:
        """Whether the SDK is: it comes with vLLM, or with the extra `mcp`."""
        return importlib.util.find_spec("mcp") is not None

    def create_router(self) -> PlainRoutes:
        router = PlainRoutes()

        # Its bodies are described by its own protocol, not by the OpenAPI document.
        async def mcp(request: Request) -> Response:
            async with received(self._current, request) as incoming:
                await off_loop_if_large(incoming.work_chars, require_few_values, incoming.wire, MAX_VALUES)
                timeout_s = self._current().config.server.client_timeout_s
                return _Handled(await self._started(), incoming.body, timeout_s)

        router.add(PATH, mcp, methods=["POST"], in_document=False)
        return router

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Ends what runs here with the context."""
        try:
            yield
        finally:
            self._stopping.set()
            if self._serving:
                await self._serving

    async def _started(self) -> "StreamableHTTPSessionManager":
        """The SDK's part, which is imported and started for the first request: that takes a second of a core."""
        async with self._starting:
            if self._manager is None:
                await asyncio.to_thread(_import_sdk)
                with _root_logger_kept():
                    manager = self._made()
                ready = asyncio.get_running_loop().create_future()
                self._serving = asyncio.create_task(self._serve(manager, ready))
                try:
                    await asyncio.wait((self._serving, ready), return_when=asyncio.FIRST_COMPLETED)
                except asyncio.CancelledError:
                    self._serving.cancel()
                    raise
                if self._serving.done():
                    self._serving.result()
                self._manager = manager
            return self._manager

    def _made(self) -> "StreamableHTTPSessionManager":
        from mcp.server.transport_security import TransportSecuritySettings

        from cappella.gateway.mcp.tools import server_of

        server = server_of(lambda context: self._asked_by(context.request_context.request))
        leave_out_texts()
        # Host, Origin and the size of the body are checked by the gateway, for all endpoints alike.
        open_ = TransportSecuritySettings(enable_dns_rebinding_protection=False)
        server.streamable_http_app(stateless_http=True, transport_security=open_, max_request_body_size=sys.maxsize)
        return server.session_manager

    async def _serve(self, manager: "StreamableHTTPSessionManager", ready: "asyncio.Future[None]") -> None:
        async with manager.run():
            ready.set_result(None)
            await self._stopping.wait()

    def _asked_by(self, request: Any) -> Loopback:
        names = list(self._current().config.ensembles)
        name = _DEFAULT if _DEFAULT in names else next(iter(names), _DEFAULT)
        return Loopback(request.scope["app"], request.scope, PREFIX + name)


def _import_sdk() -> None:
    try:
        importlib.import_module("cappella.gateway.mcp.tools")
    except ImportError as error:
        raise ConfigError("this Python", "mcp is too old", "pip install 'cappella[mcp]'") from error


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """The SDK gives the root logger a handler where it has none: all would be printed a second time, in another form."""
    root = logging.getLogger()
    handlers, level = root.handlers, root.level
    root.handlers = [logging.NullHandler()]
    try:
        yield
    finally:
        root.handlers, root.level = handlers, level


class _Handled(Response):
    """The SDK's reply to a request whose body has been read."""

    def __init__(self, manager: "StreamableHTTPSessionManager", body: bytes, timeout_s: float) -> None:
        super().__init__()
        self._manager = manager
        self._timeout_s = timeout_s
        self._unread: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def replayed() -> Message:
            return self._unread.pop() if self._unread else await receive()

        await self._manager.handle_request(scope, replayed, patient(scope, send, self._timeout_s))
