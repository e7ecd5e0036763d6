"""Paths as clients write them: a base URL with `/v1` twice or not at all, or with a slash too many, is answered all the same.

HEAD is answered wherever GET is. For other unknown paths the nearest one is named.
"""

import difflib
import re
from collections.abc import Iterator, Sequence

from starlette.types import ASGIApp, Receive, Scope, Send

_PREFIXES = ("/v1", "/api")
DOCUMENT = "GET /openapi.json lists all endpoints."
_SIMILARITY = 0.6
_MOST_CHARS = 100


class Paths:
    """The paths of the application's endpoints, as templates such as `/v1/models/{model}`."""

    def __init__(self, templates: Sequence[str]) -> None:
        self._templates = templates
        self._patterns = [re.compile(re.sub(r"\\\{.*?\\\}", ".*[^/]", re.escape(each))) for each in templates]

    def meant_by(self, path: str) -> str:
        """The endpoint's path that the client means; `path` itself if it is one, or none is near."""
        return next((each for each in _spellings(path) if self._exists(each)), path)

    def hint(self, path: str) -> str:
        """What an unknown path should have been."""
        near = difflib.get_close_matches(path[:_MOST_CHARS], self._templates, 1, _SIMILARITY)
        return f"There is no {path[:_MOST_CHARS]} here. {f'Nearest: {near[0]}. ' if near else ''}{DOCUMENT}"

    def _exists(self, path: str) -> bool:
        return any(pattern.fullmatch(path) for pattern in self._patterns)


def _spellings(path: str) -> Iterator[str]:
    """The path as it is, without needless slashes, without the prefixes of a base URL, and below /v1."""
    yield path
    plain = "/" + "/".join(part for part in path.split("/") if part)
    yield plain
    rest = plain
    while prefix := next((each for each in _PREFIXES if rest.startswith(f"{each}/")), None):
        rest = rest.removeprefix(prefix)
        # Of /api/v1/x the endpoint is /v1/x, of /v1/api/x it is /api/x.
        yield rest
        yield f"/v1{rest}"
    yield f"/v1{rest}"


class RightPath:
    """ASGI middleware that routes each request to the path that it means, and a HEAD as the GET that it is without a body."""

    def __init__(self, app: ASGIApp, paths: Paths) -> None:
        self._app = app
        self._paths = paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        # The server looks into its own scope, and so sends no body in reply to a HEAD.
        meant = {**scope, "method": method, "path": self._paths.meant_by(scope["path"])}
        try:
            await self._app(meant, receive, send)
        finally:
            # The record of the request is outside, and names the route.
            scope["route"] = meant.get("route")
