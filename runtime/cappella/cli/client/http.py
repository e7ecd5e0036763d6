"""What commands say to a server that runs."""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from cappella import vocabulary
from cappella.errors import CappellaError, ConfigError

Json = vocabulary.Json

CONNECT_TIMEOUT_S = 10.0
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)


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
    async with _asked(server, "POST", path, NO_LIMIT, body) as response:
        yield response


async def get(server: Server, path: str, timeout_s: float) -> Json:
    """The reply's JSON. Raises what `post` raises."""
    async with _asked(server, "GET", path, aiohttp.ClientTimeout(total=timeout_s)) as response:
        return parsed(await response.read())


async def stream(server: Server, path: str, body: Json) -> AsyncIterator[Json]:
    """Every chunk of a reply that comes in pieces. Raises what `post` raises, and ServerError if it breaks off."""
    async with post(server, path, body) as response:
        async for line in response.content:
            if line.startswith(b"data: [DONE]"):
                return
            if not line.startswith(b"data: "):
                continue
            chunk = parsed(line[6:])
            if "error" in chunk:
                raise ServerError(chunk["error"]["message"])
            yield chunk
        raise ServerError("The answer broke off before its end.")


@asynccontextmanager
async def _asked(
    server: Server, method: str, path: str, timeout: aiohttp.ClientTimeout, body: Json | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as session,
            session.request(method, server.url + path, json=body, headers=server.headers) as response,
        ):
            if response.status != 200:
                raise _refusal(parsed(await response.read()), response.status, response.headers)
            yield response
    except aiohttp.ClientConnectorCertificateError as error:
        problem = f"The certificate of {server.url} is not trusted here: {error.certificate_error}."
        raise ServerError(f"{problem} Name its authority's file in SSL_CERT_FILE.") from error
    except aiohttp.ClientPayloadError as error:
        raise ServerError("The answer broke off before its end.") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        said = str(error) or "it took too long"
        raise ServerError(f"No answer from {server.url}: {said}. Is `cappella serve` running there?") from error


def parsed(data: bytes) -> Json:
    """Raises ServerError for what is no JSON object."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ServerError(f"What answers there is no Cappella: {data[:60]!r}") from error
    if not isinstance(value, dict):
        raise ServerError(f"What answers there is no Cappella: {data[:60]!r}")
    return value


def _refusal(reply: Json, status: int, headers: Mapping[str, str]) -> CappellaError:
    """The server's own words, if they are of our kind, and what to do about it."""
    error = reply.get("error")
    if not isinstance(error, dict) or "message" not in error:
        return ServerError(f"The answer was {status}.")
    if error.get("code") == "config_error":
        return ConfigError(error["place"], error["problem"], error["mend"])
    return ServerError(f"{error['message']}{_mend(status, headers.get('Retry-After'))}")


def _mend(status: int, retry_after_s: str | None) -> str:
    """What the server cannot know to say: how one gives a key here, and where to look."""
    if status == 401:
        return " Give one with --key, or in CAPPELLA_KEY."
    if status == 503 and retry_after_s:
        return f" Ask again in {retry_after_s} s; `cappella top` shows how far the engines are."
    return f" Ask again in {retry_after_s} s." if retry_after_s else ""
