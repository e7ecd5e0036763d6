"""Models of attached servers, which Cappella does not start: an OpenAI-compatible client, and its health check."""

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any

from cappella.config import RemoteModel
from cappella.config.abilities import seat_lacks
from cappella.engines import openai
from cappella.engines.base import EngineStats, SingleServer, TokenCount
from cappella.engines.context_size import estimate_tokens, estimated_usage
from cappella.engines.http_engine import HttpEngine
from cappella.errors import EngineError, EngineRejected
from cappella.types import Chunk, Json, Prompt, Sampling

CHECK_INTERVAL_S = 2.0
FORWARDED_PATHS = ("/v1/chat/completions", "/v1/completions")


class OpenAIEngine(HttpEngine):
    """An engine over OpenAI's chat API without extensions. It refuses what its server lacks, and estimates sizes."""

    def supports(self, path: str) -> bool:
        """See `EngineServer.supports`."""
        return path in FORWARDED_PATHS

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """See `Engine.count_tokens`: an estimate, without the tokenizer."""
        return TokenCount(estimate_tokens(prompt), exact=False)

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        if lack := self._unsupported(prompt, sampling):
            raise EngineRejected(f"{self.status.model} cannot do this: {lack}", 400)
        body = openai.body(self.name, prompt, sampling)
        # Every server knows the older name; one that ignored the newer would write without limit.
        limit = body.pop("max_completion_tokens", None)
        return body if limit is None else {**body, "max_tokens": limit}

    def _unsupported(self, prompt: Prompt, sampling: Sampling) -> str | None:
        """What the prompt needs and the server lacks, in words."""
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
        """The server's chunks, with an estimated usage at the end if the server reports none."""
        has_usage, written = False, ""
        async with aclosing(super()._stream(prompt, sampling, is_probe)) as chunks:
            async for chunk in chunks:
                has_usage = has_usage or chunk.usage is not None
                written += chunk.content + chunk.reasoning
                yield chunk
        if not has_usage:
            yield Chunk(usage=estimated_usage(prompt, written))

    @property
    def servers(self) -> Mapping[str, SingleServer]:
        """See `EngineServer.servers`."""
        return {self.status.model: self}

    async def healthy(self) -> bool:
        """See `SingleServer.healthy`."""
        await self.list_models()
        return True

    async def stats(self) -> EngineStats:
        """See `SingleServer.stats`: OpenAI's API has none."""
        return EngineStats()

    async def metrics(self) -> str:
        """See `SingleServer.metrics`: OpenAI's API has none."""
        return ""

    async def sleep(self) -> None:
        """Raises EngineRejected: Cappella does not control the server."""
        raise EngineRejected(f"{self.status.model} is an attached server: Cappella cannot put it to sleep", 400)

    async def wake_up(self) -> None:
        """Does nothing, since the server never sleeps."""


class Attachment:
    """Keeps the status of an attached server: `ready` after a probe gave a token, `unhealthy` while one fails.

    The counterpart of `Lifecycle` for a server that Cappella neither starts nor stops. Calls of a server that hangs are given up if
    it `has_others` beside it, which can answer those that had no token yet.
    """

    def __init__(
        self,
        engine: HttpEngine,
        model: RemoteModel,
        check_interval_s: float = CHECK_INTERVAL_S,
        *,
        has_others: bool = False,
    ) -> None:
        self._engine = engine
        self._model = model
        self._check_interval_s = check_interval_s
        self._has_others = has_others
        self._idle_at = time.monotonic()
        engine.status.state, engine.status.stage = "loading", "connecting to its server"

    async def run(self) -> None:
        """Check the server every few seconds, until cancelled."""
        status = self._engine.status
        try:
            while True:
                problem = await self._problem()
                status.state, status.stage = ("unhealthy", problem) if problem else ("ready", "ready")
                status.reason, status.progress = problem, 0.0 if problem else 1.0
                # A list of models that fails once says nothing of the calls in flight.
                if problem and self._has_others and self._is_silent() and not await self._gives_token():
                    await self._engine.close()
                await asyncio.sleep(self._check_interval_s)
        finally:
            status.state = status.stage = "stopped"
            await self._engine.close()

    async def _problem(self) -> str | None:
        """Why the server cannot answer, None if it can. It is probed only if calls do not show that it can."""
        try:
            models = await self._engine.list_models()
            if problem := model_list_problem(models, self._engine.name, self._model.max_model_len):
                return problem
            if self._engine.status.state != "ready" or self._engine.circuit_breaker.is_open or self._is_silent():
                async with asyncio.timeout(self._model.hung_after_s):
                    await self._engine.probe()
                self._engine.circuit_breaker.close()
        except EngineError as error:
            return str(error)
        except TimeoutError:
            return f"no token for {self._model.hung_after_s:g} s"
        return None

    async def _gives_token(self) -> bool:
        try:
            async with asyncio.timeout(self._model.hung_after_s):
                await self._engine.probe()
        except (EngineError, TimeoutError):
            return False
        return True

    def _is_silent(self) -> bool:
        """Whether calls are in flight, and none has had output for `hung_after_s`."""
        now = time.monotonic()
        if not self._engine.in_flight:
            self._idle_at = now
        return now - max(self._idle_at, self._engine.circuit_breaker.last_output_at) > self._model.hung_after_s


def model_list_problem(models: list[Json], name: str, max_model_len: int) -> str | None:
    """How the server's list of models contradicts the config, in words; None if it does not, or is empty."""
    if not models:
        return None
    model = next((each for each in models if each.get("id") == name), None)
    if model is None:
        return f"its server has no model {name!r}, but {', '.join(str(each.get('id')) for each in models[:5])}"
    length = model.get("max_model_len")
    if isinstance(length, int) and length < max_model_len:
        return f"its server takes {length} tokens, but max_model_len is {max_model_len}"
    return None
