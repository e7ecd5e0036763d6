"""Endpoints as plain routes: each gets the request, and checks itself what it takes from it."""

from collections.abc import Awaitable, Callable, Collection, Mapping

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

Endpoint = Callable[[Request], Awaitable[Response | Mapping[str, object]]]
Decorator = Callable[[Endpoint], Endpoint]


class PlainRoutes:
    """The routes of one part of the gateway. An endpoint gets the request; a mapping that it returns is sent as JSON.

    The decorators put `prefix` before their paths.
    """

    def __init__(self, prefix: str = "") -> None:
        self.routes: list[BaseRoute] = []
        self._prefix = prefix

    def get(self, path: str) -> Decorator:
        return self._decorator(path, "GET")

    def post(self, path: str) -> Decorator:
        return self._decorator(path, "POST")

    def delete(self, path: str) -> Decorator:
        return self._decorator(path, "DELETE")

    def add(self, path: str, endpoint: Endpoint, methods: Collection[str], in_document: bool = True) -> None:
        """Add the endpoint; with `in_document`, hints at unknown paths name it, as the OpenAPI document does."""
        route = Route(path, _sent(endpoint), methods=methods, include_in_schema=in_document)
        # Starlette would add HEAD, and name both where another method is refused; a HEAD comes here as a GET.
        route.methods = set(methods)
        self.routes.append(route)

    def _decorator(self, path: str, method: str) -> Decorator:
        def add(endpoint: Endpoint) -> Endpoint:
            self.add(self._prefix + path, endpoint, [method])
            return endpoint

        return add


def _sent(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        reply = await endpoint(request)
        return reply if isinstance(reply, Response) else JSONResponse(reply)

    return answer
