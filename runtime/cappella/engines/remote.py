"""A model of a server that somebody else runs: a client for any OpenAI-compatible one, and what watches over it."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import ceil
from typing import Any

import orjson

from cappella.config import RemoteModel
from cappella.config.abilities import seat_lacks
from cappella.engines import openai
from cappella.engines.base import EngineFigures, TokenCount
from cappella.engines.http_engine import HttpEngine
from cappella.errors import EngineError, EngineRejected
from cappella.types import Chunk, Json, Prompt, Sampling, Usage

LOOK_INTERVAL_S = 2.0
PATHS = ("/v1/chat/completions", "/v1/completions")
BYTES_PER_TOKEN = 3
"""A little fewer than most tokenizers take: an estimate shall not be too low."""
MESSAGE_TOKENS = 8
IMAGE_TOKENS = 1000


class OpenAIEngine(HttpEngine):
    """An engine over OpenAI's chat API alone. What its server cannot do is refused here, and sizes are estimates."""

    def takes(self, path: str) -> bool:
        """See `EngineServer.takes`."""
        return path in PATHS

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """See `Engine.count_tokens`: nobody here has the tokenizer."""
        return TokenCount(estimated_tokens(prompt), exact=False)

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        if lack := self._lack(prompt, sampling):
            raise EngineRejected(f"{self.status.model} cannot do this: {lack}", 400)
        body = openai.body(self.name, prompt, sampling)
        # Every server knows the older name, and one that knows no other would write on and on.
        limit = body.pop("max_completion_tokens", None)
        return body if limit is None else {**body, "max_tokens": limit}

    def _lack(self, prompt: Prompt, sampling: Sampling) -> str | None:
        output_format = prompt.output_format
        if (
            output_format is not None
            and output_format.field == "structured_outputs"
            and not self.capabilities.extensions
        ):
            return "its server takes no structured_outputs"
        if output_format is not None and output_format.field == "response_format" and not self.capabilities.json_schema:
            return "its server takes no response_format"
        if prompt.logprobs is not None and not self.capabilities.logprobs:
            return "its server reports no logprobs"
        if prompt.tools and not self.capabilities.tools:
            return "its server takes no tools"
        lack = seat_lacks(self.capabilities, sampling, prompt.samples)
        return lack and lack[0]

    async def _stream(self, prompt: Prompt, sampling: Sampling, is_probe: bool = False) -> AsyncGenerator[Chunk, None]:
        """The server's chunks, and at their end a usage, if it gives none itself."""
        size_bytes, told = 0, False
        async with aclosing(super()._stream(prompt, sampling, is_probe)) as chunks:
            async for chunk in chunks:
                told = told or chunk.usage is not None
                size_bytes += len((chunk.content + chunk.reasoning).encode())
                yield chunk
        if not told:
            written = ceil(size_bytes / BYTES_PER_TOKEN)
            yield Chunk(usage=Usage(estimated_tokens(prompt), completion_tokens=written, estimated=True))

    async def healthy(self) -> bool:
        """See `EngineServer.healthy`."""
        await self.listed()
        return True

    async def figures(self) -> EngineFigures:
        """See `EngineServer.figures`: OpenAI's API has none."""
        return EngineFigures()

    async def metrics(self) -> str:
        """See `EngineServer.metrics`: OpenAI's API has none."""
        return ""

    async def sleep(self) -> None:
        """Raises EngineRejected: the server is not ours."""
        raise EngineRejected(f"{self.status.model} runs elsewhere: it does not sleep for us", 400)

    async def wake_up(self) -> None:
        """Nothing: it never sleeps."""


def estimated_tokens(prompt: Prompt) -> int:
    """About how many tokens a prompt has, by the bytes of its texts."""
    size_bytes = len(orjson.dumps(list(prompt.tools))) if prompt.tools else 0
    images = 0
    for message in prompt.messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        images += sum(part["type"] == "image_url" for part in parts)
        size_bytes += sum(len(str(part.get("text", "")).encode()) for part in parts)
        size_bytes += len(orjson.dumps(message["tool_calls"])) if message.get("tool_calls") else 0
    return ceil(size_bytes / BYTES_PER_TOKEN) + MESSAGE_TOKENS * len(prompt.messages) + IMAGE_TOKENS * images


class Attachment:
    """Keeps the status of a remote engine: `ready` once it gave a token, `unhealthy` while it cannot, with the reason.

    There is nothing to start, to stop or to put to sleep. A server that is back is asked for a token and ready again.
    """

    def __init__(self, engine: HttpEngine, model: RemoteModel, look_interval_s: float = LOOK_INTERVAL_S) -> None:
        self._engine = engine
        self._model = model
        self._look_interval_s = look_interval_s
        self._idle_at = time.monotonic()
        engine.status.state, engine.status.stage = "loading", "connecting to its server"

    async def run(self) -> None:
        """Look at the server now and then, until cancelled."""
        status = self._engine.status
        try:
            while True:
                problem = await self._problem()
                status.state, status.stage = ("unhealthy", problem) if problem else ("ready", "ready")
                status.reason, status.progress = problem, 0.0 if problem else 1.0
                await asyncio.sleep(self._look_interval_s)
        finally:
            status.state = status.stage = "stopped"
            await self._engine.close()

    async def _problem(self) -> str | None:
        """What keeps it from answering, if anything does. A token is asked for only where calls do not show it."""
        try:
            if problem := misfit(await self._engine.listed(), self._engine.name, self._model.max_model_len):
                return problem
            if self._engine.status.state != "ready" or self._engine.circuit_breaker.broken or self._is_silent():
                async with asyncio.timeout(self._model.hung_after_s):
                    await self._engine.probe()
                if self._engine.circuit_breaker.broken:
                    self._engine.circuit_breaker.try_again()
        except EngineError as error:
            return str(error)
        except TimeoutError:
            return f"it gave no token for {self._model.hung_after_s:g} s"
        return None

    def _is_silent(self) -> bool:
        """Whether it has calls from which nothing came for too long."""
        now = time.monotonic()
        if not self._engine.in_flight:
            self._idle_at = now
        return now - max(self._idle_at, self._engine.circuit_breaker.heard_at) > self._model.hung_after_s


def misfit(listed: list[Json], name: str, max_model_len: int) -> str | None:
    """What the server's own list of models has against the config; a server that lists none has nothing."""
    if not listed:
        return None
    ours = next((each for each in listed if each.get("id") == name), None)
    if ours is None:
        return f"its server has no model {name!r}, but {', '.join(str(each.get('id')) for each in listed[:5])}"
    length = ours.get("max_model_len")
    if isinstance(length, int) and length < max_model_len:
        return f"its server takes {length} tokens, and max_model_len says {max_model_len}"
    return None
