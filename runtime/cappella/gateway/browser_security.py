"""What stands before every endpoint because browsers exist: who may be called by what name, and from whose pages.

Without keys, whoever reaches the port may do everything, and any page that a person on this machine opens has a browser
that reaches it: through a host name that leads here, or by a POST that browsers send without asking.
"""

from collections.abc import Awaitable, Callable
from ipaddress import ip_address

from starlette.applications import Starlette
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cappella.config import Server
from cappella.errors import Forbidden

HEADERS = {
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
}
"""On every reply that does not say otherwise itself."""
HSTS = {b"strict-transport-security": b"max-age=31536000"}
PREFLIGHT_S = 600

Refuse = Callable[[Request, Exception], Awaitable[Response]]


def shield(app: Starlette, server: Server, refuse: Refuse) -> None:
    """From now on `app` is for those who may call it; `refuse` makes the reply for the others."""
    if server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=("GET", "POST"),
            # Clients' libraries bring a dozen of their own, and none of them opens anything.
            allow_headers=("*",),
            expose_headers=("Retry-After",),
            max_age=PREFLIGHT_S,
        )
    app.add_middleware(_Shield, server=server, refuse=refuse)


class Spoken:
    """An application whose every reply has HEADERS. Plain ASGI, as all here: tokens pass without a task or a queue."""

    def __init__(self, app: ASGIApp, tls: bool) -> None:
        self._app = app
        self._headers = HEADERS | HSTS if tls else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def spoken(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                there = {name.lower() for name, _ in headers}
                message["headers"] = [*headers, *(each for each in self._headers.items() if each[0] not in there)]
            await send(message)

        await self._app(scope, receive, spoken)


class _Shield:
    def __init__(self, app: ASGIApp, server: Server, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._open = server.keys is None
        # With keys a name that leads here opens nothing, and those who set them have names of their own.
        self._hosts = {"localhost", server.host.lower(), *server.allowed_hosts}
        self._asks_host = self._open or bool(server.allowed_hosts)
        self._origins = frozenset(server.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(request := Request(scope))):
            refusal = await self._refuse(request, problem)
            return await refusal(scope, receive, send)
        await self._app(scope, receive, send)

    def _problem(self, request: Request) -> Forbidden | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        # Browsers always name the host.
        if host and self._asks_host and not self._answers_to(name := _name(host)):
            hint = "call it by its address, or add the name to server.allowed_hosts"
            return Forbidden(f"This server does not answer to {name[:100]!r}: {hint}.", "host_not_allowed")
        if origin is None or origin in self._origins or origin.partition("://")[2] == host:
            return None
        asks_first = request.method == "OPTIONS" and "access-control-request-method" in request.headers
        if not self._open and not asks_first:
            return None
        hint = "add it to server.cors_origins if they should"
        return Forbidden(f"Pages of {origin[:100]!r} may not call this server: {hint}.", "origin_not_allowed")

    def _answers_to(self, name: str) -> bool:
        """An address can only be meant; a name may be made to lead here by whoever owns it."""
        return name in self._hosts or _is_address(name)


def _name(host: str) -> str:
    """A Host header without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
