"""The web page: serves the files of `web/`. They need no key; the endpoints that the page calls do."""

import hashlib
from collections.abc import Awaitable, Callable
from functools import cache, partial
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from cappella.gateway import page_script
from cappella.gateway.plain_routes import PlainRoutes

WEB = Path(__file__).with_name("web")
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
# Not from the system's table, which may give scripts a type that browsers do not run.
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".txt": "text/plain; charset=utf-8",
    ".woff2": "font/woff2",
}
"""The types of the files that are served; others are not."""


@cache
def create_router(web: Path = WEB) -> PlainRoutes:
    """One route for each file that exists when this is first called, so that no crafted path can reach another file."""
    router = PlainRoutes()
    for file in sorted(web.rglob("*")):
        if file.suffix in MEDIA_TYPES:
            name = file.relative_to(web).as_posix()
            path = "/" if name == "index.html" else f"/{name}"
            router.add(path, _endpoint(file.read_bytes, file.suffix), methods=["GET", "HEAD"], in_document=False)
    # Made once: it takes longer than to read a file.
    script = _endpoint(cache(partial(page_script.joined, web / "assets")), ".js")
    router.add("/page.js", script, methods=["GET", "HEAD"], in_document=False)
    return router


def _endpoint(read: Callable[[], bytes], suffix: str) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        # The files are small and in the page cache: a thread would take longer.
        content = read()
        tag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        # Browsers replace their cached headers by those of a 304: it needs all of them.
        headers = {"ETag": tag, "Cache-Control": "no-cache", "Content-Security-Policy": POLICY}
        if _client_has(request, tag):
            return Response(status_code=304, headers=headers)
        return Response(content, headers=headers, media_type=MEDIA_TYPES[suffix])

    return serve


def _client_has(request: Request, tag: str) -> bool:
    """Whether the client has this version cached."""
    held = request.headers.get("if-none-match", "")
    return any(each.strip().removeprefix("W/") in (tag, "*") for each in held.split(","))
