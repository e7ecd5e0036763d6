"""The client of the evaluated server: waits while it restarts, and tells what was refused from what broke."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from cappella.errors import CappellaError
from cappella.types import Json

CHAT = "/v1/chat/completions"
FIRST_PAUSE_S, MAX_PAUSE_S = 0.5, 15.0
PATIENCE_S = 900.0
BROKEN_TRIES = 3
NOT_NOW = (429, 503)
"""Statuses of a server that will answer later: it is busy, or its engines are starting."""
FATAL = (401, 403, 404, 405)

Pause = Callable[[float], Awaitable[object]]


class Unanswered(CappellaError):
    """One question without an answer: the server refused it, or broke every time."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call gave: tokens of all its engine calls, and the seconds of the try that gave it, as seen from here. `fusion` is a run's trace."""

    content: str
    read_tokens: int
    written_tokens: int
    seconds: float
    fusion: Json | None = None


class Server:
    """The server at `url`. `pause` waits so many seconds between tries, for at most `patience_s` in all; `clock` times calls."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        key: str | None = None,
        pause: Pause = asyncio.sleep,
        patience_s: float = PATIENCE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self.url = url
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._pause = pause
        self._patience_s = patience_s
        self._clock = clock

    async def models(self) -> Mapping[str, Json]:
        """The entries of `/v1/models` by id. Raises CappellaError at once if nobody answers."""
        status, reply, _ = await self._patiently("GET", "/v1/models", None, patience_s=0)
        if status != 200 or not isinstance(reply.get("data"), list):
            raise CappellaError(f"{self.url} lists no models: {status} {_message(reply)}")
        return {str(each["id"]): each for each in reply["data"]}

    async def ask(self, body: Json) -> Answer:
        """The answer. Raises Unanswered for this question alone, and CappellaError where no other would be answered."""
        return _answer(*await self.post(CHAT, body))

    async def post(self, path: str, body: Json) -> tuple[Json, float]:
        """The reply, and the seconds of the try that gave it. Raises what `ask` raises."""
        for left in reversed(range(BROKEN_TRIES)):
            status, reply, seconds = await self._patiently("POST", path, body, self._patience_s)
            if status == 200:
                return reply, seconds
            if status in FATAL or _refuses_every_run(reply, body):
                raise CappellaError(
                    f"{self.url} refuses {body.get('model') or body.get('ensemble')}: {_message(reply)}"
                )
            if status < 500:
                raise Unanswered(_message(reply))
            if left:
                await self._pause(FIRST_PAUSE_S)
        raise Unanswered(f"{status} {_message(reply)}")

    async def _patiently(self, method: str, path: str, body: Json | None, patience_s: float) -> tuple[int, Json, float]:
        """Status, JSON and seconds of the last try, waiting for a server that is busy, or away. Raises CappellaError."""
        pause_s, waited_s = FIRST_PAUSE_S, 0.0
        while True:
            began = self._clock()
            try:
                status, reply = await self._once(method, path, body)
                if status not in NOT_NOW:
                    return status, reply, self._clock() - began
                problem = f"{status} {_message(reply)}"
            except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
                raise CappellaError(f"{self.url} is not an address. Write it as http://HOST:PORT.") from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                problem = str(error) or type(error).__name__
            if waited_s >= patience_s:
                raise CappellaError(f"No answer from {self.url}: {problem}. Is `cappella serve` running there?")
            await self._pause(pause_s)
            waited_s += pause_s
            pause_s = min(2 * pause_s, MAX_PAUSE_S)

    async def _once(self, method: str, path: str, body: Json | None) -> tuple[int, Json]:
        headers = self._headers | ({"Content-Type": "application/json"} if body is not None else {})
        data = None if body is None else orjson.dumps(body)
        async with self._http.request(method, self.url + path, data=data, headers=headers) as response:
            raw = await response.read()
        try:
            reply = orjson.loads(raw)
        except ValueError:
            reply = None
        if isinstance(reply, dict):
            return response.status, reply
        if response.status >= 500:
            # A proxy's own page while the server behind it restarts.
            return response.status, {"error": repr(raw[:60])}
        raise CappellaError(f"{self.url} is not Cappella; it answered {raw[:60]!r}")


def session() -> aiohttp.ClientSession:
    """A session without limits of its own."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=10)
    return aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)


def _answer(reply: Json, seconds: float) -> Answer:
    try:
        content = str(reply["choices"][0]["message"].get("content") or "")
    except (LookupError, TypeError, AttributeError) as error:
        raise Unanswered(f"the reply has no message: {str(reply)[:200]}") from error
    fusion = reply.get("fusion")
    spent = _spent(fusion) or reply.get("usage") or {}
    read, written = (int(spent.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
    return Answer(content, read, written, round(seconds, 4), fusion)


def _spent(fusion: Any) -> Json | None:
    """The sum of all calls of a run."""
    usage = fusion.get("usage") if isinstance(fusion, dict) else None
    return usage if isinstance(usage, dict) else None


def _refuses_every_run(reply: Json, body: Json) -> bool:
    """Whether what is refused is `fusion.answers`, which every run here sends: by its config, or as it is too old."""
    error = reply.get("error")
    if "answers" not in (body.get("fusion") or {}) or not isinstance(error, dict):
        return False
    return str(error.get("param")).endswith("fusion.answers") or error.get("code") == "overrides_forbidden"


def _message(reply: Json) -> str:
    error = reply.get("error")
    return str(error.get("message", error) if isinstance(error, dict) else error)[:300]
