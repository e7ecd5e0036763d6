"""The key of a server that listens on a network: it is asked for at every path, where vLLM's own asks below /v1 only."""

import os
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

KEY = "CAPPELLA_ENGINE_KEY"
"""The variable with the key, which a command line would show to all users of the machine."""

_Scope = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
_Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_App = Callable[[_Scope, _Receive, _Send], Awaitable[None]]


class RequireKey:
    """ASGI middleware: whoever does not send the key is refused with a 401, and a WebSocket is closed."""

    def __init__(self, app: _App) -> None:
        self._app = app
        self._wanted = f"Bearer {os.environ[KEY]}".encode()

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        headers = dict(scope.get("headers", ()))
        knows = secrets.compare_digest(headers.get(b"authorization", b""), self._wanted)
        if scope["type"] == "lifespan" or (scope["type"] == "http" and knows):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-length", b"0")]})
            await send({"type": "http.response.body", "body": b""})
        else:
            await send({"type": "websocket.close", "code": 1008})
