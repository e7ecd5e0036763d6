"""What commands say to a server that runs."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp

from cappella.errors import CappellaError, ConfigError

Json = dict[str, Any]


class ServerError(CappellaError):
    """The server could not be reached, or answered with an error."""


@dataclass(frozen=True, slots=True)
class Server:
    """Where a server listens, and the key that it wants, if it wants one."""

    url: str
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@asynccontextmanager
async def post(server: Server, path: str, body: Json) -> AsyncIterator[aiohttp.ClientResponse]:
    """The one response, open. Raises ServerError with the server's own words; ConfigError if its config is what is wrong."""
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None), read_bufsize=1 << 20) as session,
            session.post(server.url + path, json=body, headers=server.headers) as response,
        ):
            if response.status != 200:
                raise _refusal(parsed(await response.read()), response.status)
            yield response
    except aiohttp.ClientError as error:
        raise ServerError(f"No answer from {server.url}: {error}. Is `cappella serve` running there?") from error


def parsed(data: bytes) -> Json:
    """Raises ServerError for what is no JSON object."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ServerError(f"What answers there is no Cappella: {data[:60]!r}") from error
    if not isinstance(value, dict):
        raise ServerError(f"What answers there is no Cappella: {data[:60]!r}")
    return value


def _refusal(reply: Json, status: int) -> CappellaError:
    """The server's own words, if they are of our kind."""
    error = reply.get("error")
    if not isinstance(error, dict) or "message" not in error:
        return ServerError(f"The answer was {status}.")
    if error.get("code") == "config_error":
        return ConfigError(error["place"], error["problem"], error["mend"])
    return ServerError(str(error["message"]))
