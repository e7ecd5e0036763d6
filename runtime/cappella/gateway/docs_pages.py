"""`/docs`: the documentation in a browser, for sites without a network. It needs no key."""

from collections.abc import Awaitable, Callable

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse

from cappella.docs import page
from cappella.docs.topics import topics
from cappella.gateway.page import POLICY

_HEADERS = {"Cache-Control": "no-cache", "Content-Security-Policy": POLICY}


def create_router() -> APIRouter:
    """`/docs` is the first page, `/docs/<name>` each of them."""
    router, known = APIRouter(), topics()
    pages = {f"/docs/{topic.name}": page.html(topic, known) for topic in known}
    pages["/docs"] = pages[f"/docs/{known[0].name}"]
    for path, content in pages.items():
        router.add_route(path, _endpoint(content), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _endpoint(content: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        return HTMLResponse(content, headers=_HEADERS)

    return serve
