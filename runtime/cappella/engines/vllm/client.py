"""An engine over one vLLM server's HTTP API."""

import asyncio
import errno
from collections.abc import Mapping
from typing import Any

import aiohttp
import orjson

from cappella.engines import cache_salt, refusals
from cappella.engines.base import EngineStats, SingleServer, TokenCount
from cappella.engines.context_size import prompt_work
from cappella.engines.http_engine import HEALTH_TIMEOUT_S, METRICS_TIMEOUT_S, HttpEngine
from cappella.engines.vllm import form_check, metrics, protocol
from cappella.engines.vllm.scores import PATHS as POOLING_PATHS
from cappella.errors import EngineBroke
from cappella.threads import off_loop_if_large
from cappella.types import Prompt, Sampling

NOBODY_LISTENS = (errno.ECONNREFUSED, errno.ENOENT)
"""Errors of a connection that say so, at a port or at a socket's path; others may be the network's fault, or the gateway's."""


class VllmEngine(HttpEngine):
    """See `HttpEngine`; uses vLLM's extensions of OpenAI's API. `name` is the model's, or an adapter's."""

    def supports(self, path: str) -> bool:
        """See `EngineServer.supports`: vLLM has all paths of models that write."""
        return path not in POOLING_PATHS

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """See `Engine.count_tokens`."""
        self.require_accepting()
        prompt = await self._plain(prompt)
        body = {"model": self.name, "messages": list(prompt.messages), "add_generation_prompt": True}
        tools = {"tools": list(prompt.tools)} if prompt.tools else {}
        words = {"chat_template_kwargs": prompt.template_words} if prompt.template_words else {}
        encoded = await off_loop_if_large(prompt_work(prompt), orjson.dumps, {**body, **tools, **words})
        async with self._awake(), self._post("/tokenize", encoded) as response:
            reply = await response.read()
            if response.status != 200:
                raise refusals.from_reply(response.status, reply)
        return TokenCount(protocol.token_count(reply))

    def _probe_prompt(self) -> Prompt:
        """With logprobs, since the first request for them compiles for seconds."""
        return Prompt([{"role": "user", "content": "Hello"}], logprobs=1)

    def _body(self, prompt: Prompt, sampling: Sampling) -> dict[str, Any]:
        body = protocol.body(self.name, prompt, sampling, self.in_flight)
        salt = cache_salt.current()
        return {**body, "cache_salt": salt} if salt else body

    async def _require_compilable(self, prompt: Prompt) -> None:
        if self._is_local and (prompt.output_format or prompt.tools):
            await form_check.require_compilable(protocol.forms(prompt))

    async def _require_compilable_body(self, body: bytes) -> None:
        if self._is_local:
            await form_check.require_compilable_body(body)

    def _forwarded(self, body: bytes) -> bytes:
        salt = cache_salt.current()
        return protocol.with_field(super()._forwarded(body), "cache_salt", salt) if salt else super()._forwarded(body)

    async def sleep(self) -> None:
        """Move the weights to main memory and drop the KV cache (vLLM's sleep level 1). Raises EngineError."""
        await self._command("/sleep?level=1")

    async def wake_up(self) -> None:
        """Undo `sleep`. Raises EngineError."""
        await self._command("/wake_up")

    async def _command(self, path: str) -> None:
        async with self._post(path, b"") as response:
            if response.status != 200:
                raise refusals.from_reply(response.status, await response.read())

    @property
    def servers(self) -> Mapping[str, SingleServer]:
        """See `EngineServer.servers`."""
        return {self.status.model: self}

    async def healthy(self) -> bool:
        """Whether the server reports a living core. Raises EngineError if it is slow to answer, or breaks off."""
        try:
            async with self._get("/health", HEALTH_TIMEOUT_S) as response:
                return response.status == 200
        except EngineBroke as error:
            # A server whose core died closes its socket soon, and then waits for its last calls.
            if isinstance(error.__cause__, aiohttp.ClientConnectorError) and error.__cause__.errno in NOBODY_LISTENS:
                return False
            raise

    async def stats(self) -> EngineStats:
        """See `SingleServer.stats`."""
        page = await self.metrics()
        # Parsing thousands of lines takes milliseconds: not in the event loop.
        return await asyncio.to_thread(metrics.parse, page)

    async def metrics(self) -> str:
        """See `SingleServer.metrics`."""
        async with self._get("/metrics", METRICS_TIMEOUT_S) as response:
            response.raise_for_status()
            return await response.text()
