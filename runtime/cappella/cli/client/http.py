"""The HTTP client of the commands."""

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import aiohttp

from cappella import sse, vocabulary
from cappella.errors import CappellaError, ConfigError

Json = vocabulary.Json

CONNECT_TIMEOUT_S = 10.0
NO_LIMIT = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)


class ServerError(CappellaError):
    """The server cannot be reached, or it answered with an error."""


@dataclass(frozen=True, slots=True)
class Server:
    """Address of a server, and an API key if it requires one."""

    url: str
    key: str | None

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"} if self.key else {}


@asynccontextmanager
async def post(server: Server, path: str, body: Json) -> AsyncIterator[aiohttp.ClientResponse]:
    """The response, open. Raises ServerError with the server's message, or ConfigError if the server's config is invalid."""
    async with _open_response(server, "POST", path, NO_LIMIT, body) as response:
        yield response


async def get(server: Server, path: str, timeout_s: float) -> Json:
    """The reply as JSON. Raises what `post` raises."""
    async with _open_response(server, "GET", path, aiohttp.ClientTimeout(total=timeout_s)) as response:
        return parsed(await response.read())


async def stream(server: Server, path: str, body: Json) -> AsyncGenerator[Json, None]:
    """Every chunk of a streamed reply. Raises what `post` raises, and ServerError if the stream ends early."""
    async with post(server, path, body) as response:
        reader = sse.Reader()
        async for piece in response.content.iter_any():
            for data in reader.feed(piece):
                if data == sse.DONE:
                    return
                chunk = parsed(data)
                if "error" in chunk:
                    raise ServerError(chunk["error"]["message"])
                yield chunk
        raise ServerError("The answer ended early.")


@asynccontextmanager
async def _open_response(
    server: Server, method: str, path: str, timeout: aiohttp.ClientTimeout, body: Json | None = None
) -> AsyncIterator[aiohttp.ClientResponse]:
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout, read_bufsize=1 << 20) as session,
            session.request(method, server.url + path, json=body, headers=server.headers) as response,
        ):
            if response.status != 200:
                raise _server_error(parsed(await response.read()), response.status, response.headers)
            yield response
    except aiohttp.ClientConnectorCertificateError as error:
        problem = f"The certificate of {server.url} is not trusted here: {error.certificate_error}."
        raise ServerError(f"{problem} Name its authority's file in SSL_CERT_FILE.") from error
    except aiohttp.ClientPayloadError as error:
        raise ServerError("The answer ended early.") from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise ServerError(f"{server.url} is not an address. Write it as http://HOST:PORT.") from error
    except (aiohttp.ClientError, TimeoutError) as error:
        problem = f"No answer from {server.url}: {_reason(error)}."
        raise ServerError(f"{problem} Is `cappella serve` running there?") from error


def _reason(error: Exception) -> str:
    """The operating system's error message, without the text of the HTTP library."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, TimeoutError) and not cause.errno:
        return "it took too long"
    if isinstance(cause, OSError) and cause.errno:
        # Numbers of failed look-ups of a name are negative, and their texts are the resolver's.
        return os.strerror(cause.errno) if cause.errno > 0 else str(cause.strerror)
    return str(cause) or type(cause).__name__


def parsed(data: bytes) -> Json:
    """Raises ServerError unless the data is a JSON object."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise ServerError(f"The server is not Cappella; it answered {data[:60]!r}") from error
    if not isinstance(value, dict):
        raise ServerError(f"The server is not Cappella; it answered {data[:60]!r}")
    return value


def _server_error(reply: Json, status: int, headers: Mapping[str, str]) -> CappellaError:
    """The server's message, if it is in our format, with a hint."""
    error = reply.get("error")
    if not isinstance(error, dict) or "message" not in error:
        return ServerError(f"The answer was {status}.")
    if error.get("code") == "config_error":
        return ConfigError(error["place"], error["problem"], error["hint"])
    return ServerError(f"{error['message']}{_hint(status, headers.get('Retry-After'))}")


def _hint(status: int, retry_after_s: str | None) -> str:
    """Hints that only this client can give: how to pass a key, and where to look."""
    if status == 401:
        return " Pass a key with --key or CAPPELLA_KEY."
    if status == 503 and retry_after_s:
        return f" Retry in {retry_after_s} s; `cappella top` shows the engines."
    return f" Retry in {retry_after_s} s." if retry_after_s else ""
