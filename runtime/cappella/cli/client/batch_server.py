"""The batch API of a server: files and batches. A server that restarts is waited for."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import aiohttp

from cappella.cli.client.http import ServerError, parsed
from cappella.vocabulary import Json

PATIENCE_S = 900.0
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 15.0
NOT_NOW = (429, 502, 503)
OVER = ("completed", "failed", "expired", "cancelled")
PAGE = 100


def is_over(batch: Json) -> bool:
    """Whether nothing more comes of the batch."""
    return batch["status"] in OVER


class ServerAway(ServerError):
    """The server did not answer, or not now."""


class BatchServer:
    """The server at `url`. Methods raise ServerError with its message; one that is away or busy is asked again for 15 minutes."""

    def __init__(self, http: aiohttp.ClientSession, url: str, key: str | None) -> None:
        self._http = http
        self._url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}

    async def upload(self, data: bytes) -> str:
        """The id of a new file of rows."""

        def form() -> aiohttp.FormData:
            fields = aiohttp.FormData({"purpose": "batch"})
            fields.add_field("file", data, filename="rows.jsonl", content_type="application/jsonl")
            return fields

        return str((await self._call("POST", "/v1/files", form))["id"])

    async def create(self, file: str, endpoint: str, window: str, metadata: Mapping[str, str]) -> Json:
        """A new batch of the rows of a file; one that was made though its reply was lost is not made again."""
        body = {"input_file_id": file, "endpoint": endpoint, "completion_window": window, "metadata": dict(metadata)}
        waited_s = 0.0
        while True:
            try:
                return await self._call("POST", "/v1/batches", lambda: body, patience_s=0)
            except ServerAway:
                if waited_s >= PATIENCE_S:
                    raise
            await asyncio.sleep(MAX_PAUSE_S)
            waited_s += MAX_PAUSE_S
            for name, value in metadata.items():
                made = [each for each in await self.batches(name, value) if each["input_file_id"] == file]
                if made:
                    return made[0]

    async def accept_weights(self, batch_id: str) -> None:
        """Let a batch go on with other weights than those that it began with."""
        await self._call("POST", f"/v1/batches/{batch_id}/resume", lambda: {"accept_new_weights": True})

    async def batch(self, batch_id: str) -> Json:
        """The batch as it is now."""
        return await self._call("GET", f"/v1/batches/{batch_id}")

    async def batches(self, name: str, value: str) -> list[Json]:
        """All batches with this entry in their metadata."""
        found: list[Json] = []
        after = ""
        while True:
            page = await self._call("GET", f"/v1/batches?limit={PAGE}{after}")
            found += [each for each in page["data"] if (each.get("metadata") or {}).get(name) == value]
            if not page.get("has_more"):
                return found[::-1]
            after = f"&after={page['data'][-1]['id']}"

    async def cancel(self, batch_id: str) -> None:
        """End the batch; rows that have answers keep them."""
        await self._call("POST", f"/v1/batches/{batch_id}/cancel", dict)

    async def forget(self, batch: Json) -> None:
        """Delete the files of a batch that has ended: nothing of the rows stays at the server."""
        for kind in ("input_file_id", "output_file_id", "error_file_id"):
            if batch.get(kind):
                await self._call("DELETE", f"/v1/files/{batch[kind]}", allowed=(404,))

    async def lines(self, file_id: str) -> AsyncIterator[Json]:
        """The JSON lines of a file. Raises ServerAway if it breaks off."""
        url = f"{self._url}/v1/files/{file_id}/content"
        try:
            async with self._http.get(url, headers=self._headers) as reply:
                if reply.status == 404:
                    # Its lines were collected, or it has expired: what has no answer is asked again.
                    return
                if reply.status != 200:
                    raise ServerError(_message(reply.status, await reply.read()))
                rest = b""
                async for piece in reply.content.iter_any():
                    *whole, rest = (rest + piece).split(b"\n")
                    for line in whole:
                        yield json.loads(line)
                if rest.strip():
                    yield json.loads(rest)
        except aiohttp.ClientError as error:
            raise ServerAway(f"{self._url} broke off in the answers ({error}). The same command goes on.") from error

    async def _call(
        self,
        method: str,
        path: str,
        body: Callable[[], Any] | None = None,
        allowed: tuple[int, ...] = (),
        patience_s: float = PATIENCE_S,
    ) -> Json:
        """The reply. `body` makes what is sent, anew for each try. Raises ServerAway if nobody answers for so long."""
        pause_s, waited_s = FIRST_PAUSE_S, 0.0
        while True:
            try:
                status, data = await self._once(method, path, body)
                if status == 200 or status in allowed:
                    return parsed(data)
                problem = _message(status, data)
                if status not in NOT_NOW:
                    raise ServerError(problem)
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
                raise ServerError(f"{self._url} is not an address. Write it as http://HOST:PORT.") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = str(error) or type(error).__name__
            if waited_s >= patience_s:
                raise ServerAway(f"No answer from {self._url}: {problem}. Is `cappella serve` running there?")
            await asyncio.sleep(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _once(self, method: str, path: str, body: Callable[[], Any] | None) -> tuple[int, bytes]:
        made = body() if body else None
        sent: dict[str, Any] = {"data": made} if isinstance(made, aiohttp.FormData) else {"json": made} if body else {}
        async with self._http.request(method, self._url + path, headers=self._headers, **sent) as reply:
            return reply.status, await reply.read()


def _message(status: int, data: bytes) -> str:
    try:
        return str(json.loads(data)["error"]["message"])
    except (ValueError, LookupError, TypeError):
        return f"The answer was {status}: {data[:100]!r}"
