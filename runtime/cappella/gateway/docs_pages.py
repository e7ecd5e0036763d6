"""`/docs`: the documentation in a browser, for sites without a network. It needs no key."""

from collections.abc import Awaitable, Callable
from functools import cache

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from cappella.docs import page
from cappella.docs.topics import NAMES, topics
from cappella.gateway.page import POLICY
from cappella.gateway.plain_routes import PlainRoutes

_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}


@cache
def create_router() -> PlainRoutes:
    """`/docs` is the first page, `/docs/<name>` each of them."""
    router = PlainRoutes()
    names = {"/docs": NAMES[0], **{f"/docs/{name}": name for name in NAMES}}
    for path, name in names.items():
        router.add(path, _endpoint(name), methods=["GET", "HEAD"], in_document=False)
    return router


def _endpoint(name: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return HTMLResponse(_pages()[name], headers=_HEADERS)

    return serve


@cache
def _pages() -> dict[str, str]:
    """Made when the first is read: most servers are started more often than their documentation is opened."""
    known = topics()
    return {topic.name: page.html(topic, known) for topic in known}
