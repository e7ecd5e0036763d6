"""Where the server of a model listens, and HTTP sessions with it."""

from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

KEEP_ALIVE_S = 15.0


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens: `base` is the URL of its API, including /v1, over a Unix `socket` if there is one.

    One that was `started_here`, as each on a socket was, is Cappella's own, and has the model under the name that clients use.
    """

    base: str = "http://engine/v1"
    socket: Path | None = None
    key: str | None = field(default=None, repr=False)
    started_here: bool = False

    def url(self, path: str) -> str:
        """The URL of a path: /v1/... is below `base`, any other, such as /metrics, beside it."""
        if path.startswith("/v1/"):
            return self.base + path.removeprefix("/v1")
        return self.base.removesuffix("/v1") + path

    def session(self) -> aiohttp.ClientSession:
        connector: aiohttp.BaseConnector = (
            aiohttp.UnixConnector(str(self.socket), limit=0, keepalive_timeout=KEEP_ALIVE_S)
            if self.socket
            else aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S)
        )
        return aiohttp.ClientSession(
            connector=connector,
            headers={"Authorization": f"Bearer {self.key}"} if self.key else None,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=10),
            # One event may be one line of a megabyte: a whole analysis in one chunk, say.
            read_bufsize=1 << 20,
        )
