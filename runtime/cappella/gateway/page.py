"""The page: the files of `web/`, each under its own path, and nothing else. It needs no key; what it calls does."""

import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path

from fastapi import APIRouter, Request, Response

WEB = Path(__file__).with_name("web")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Not by the machine's own table of types, which may call a script what no browser runs.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
}
"""Of what is served; other files are not."""


def create_router(web: Path = WEB) -> APIRouter:
    """A path for each file that is there now: no path that a client makes up leads to another."""
    router = APIRouter()
    for file in sorted(web.rglob("*")):
        if file.suffix in MEDIA_TYPES:
            name = file.relative_to(web).as_posix()
            path = "/" if name == "index.html" else f"/{name}"
            router.add_api_route(path, _serving(file), methods=["GET", "HEAD"], include_in_schema=False)
    return router


def _serving(file: Path) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        # Small, and in the system's cache: a thread would take longer.
        content = file.read_bytes()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        # A reply that nothing has changed replaces the headers that a browser keeps: it says all of them, too.
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if _has(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=MEDIA_TYPES[file.suffix])

    return serve


def _has(request: Request, tag: str) -> bool:
    """Whether the client holds it already."""
    held = request.headers.get("if-none-match", "")
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in held.split(","))
