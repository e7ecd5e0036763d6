"""Protection against web pages of other origins: checks of Host and Origin, CORS, and security headers.

Without keys, anything that reaches the port may do everything, and so may a page in a browser on this machine: by DNS
rebinding (a host name that resolves to this address), or by a POST that browsers send without a preflight.
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
"""Added to each reply, except for headers that it has already."""
HSTS = {b"strict-transport-security": b"max-age=31536000"}
PREFLIGHT_S = 600

Refuse = Callable[[Request, Exception], Awaitable[Response]]


def protect(app: Starlette, server: Server, refuse: Refuse) -> None:
    """Adds the checks to `app`; `refuse` makes the reply to a request that fails them."""
    if server.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=server.cors_origins,
            allow_methods=("GET", "POST", "DELETE"),
            # Client libraries send a dozen of their own; none grants access.
            allow_headers=("*",),
            expose_headers=("Retry-After",),
            max_age=PREFLIGHT_S,
        )
    app.add_middleware(_HostAndOriginCheck, server=server, refuse=refuse)


class SecurityHeaders:
    """ASGI middleware that adds HEADERS to each reply. Plain ASGI, so that a stream needs no extra task or queue."""

    def __init__(self, app: ASGIApp, tls: bool) -> None:
        self._app = app
        self._headers = HEADERS | HSTS if tls else HEADERS

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = message["headers"]
                present = {name.lower() for name, _ in headers}
                message["headers"] = [*headers, *(each for each in self._headers.items() if each[0] not in present)]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _HostAndOriginCheck:
    def __init__(self, app: ASGIApp, server: Server, refuse: Refuse) -> None:
        self._app = app
        self._refuse = refuse
        self._keyless = server.keys is None
        # With keys, DNS rebinding gains nothing, and such servers have names of their own.
        self._hosts = {"localhost", server.host.lower(), *server.allowed_hosts}
        self._checks_host = self._keyless or bool(server.allowed_hosts)
        self._origins = frozenset(server.cors_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (problem := self._problem(request := Request(scope))):
            refusal = await self._refuse(request, problem)
            return await refusal(scope, receive, send)
        await self._app(scope, receive, send)

    def _problem(self, request: Request) -> Forbidden | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        # Browsers always send a Host.
        if host and self._checks_host and not self._is_own_host(name := _name(host)):
            hint = "call the server by its address, or add the name to server.allowed_hosts"
            return Forbidden(f"The host {name[:100]!r} is not allowed: {hint}.", "host_not_allowed")
        if origin is None or origin in self._origins or origin.partition("://")[2] == host:
            return None
        is_preflight = request.method == "OPTIONS" and "access-control-request-method" in request.headers
        if not self._keyless and not is_preflight:
            return None
        hint = "to allow them, add it to server.cors_origins"
        return Forbidden(f"Pages of {origin[:100]!r} may not call this server: {hint}.", "origin_not_allowed")

    def _is_own_host(self, name: str) -> bool:
        """An address is always ours; a name may resolve here because its owner wants to attack."""
        return name in self._hosts or _is_address(name)


def _name(host: str) -> str:
    """The name in a Host header, without the port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower().removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
