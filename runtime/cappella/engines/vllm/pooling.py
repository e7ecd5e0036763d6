"""An engine over one vLLM server that writes nothing: it gives embeddings, ranks documents, or scores answers."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import replace

import orjson

from cappella.engines import cache_salt, refusals
from cappella.engines.base import Embeddings, Score
from cappella.engines.context_size import prompt_work
from cappella.engines.vllm import scores
from cappella.engines.vllm.client import VllmEngine
from cappella.errors import EngineRejected
from cappella.threads import off_loop_if_large
from cappella.types import Chunk, Json, Prompt, Sampling
from cappella.vocabulary import TASKS


class PoolingEngine(VllmEngine):
    """See `HttpEngine`; its `capabilities` have the task."""

    def supports(self, path: str) -> bool:
        """See `EngineServer.supports`."""
        return path in scores.PATHS_OF[self.capabilities.task] or path in ("/tokenize", "/detokenize")

    def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """Raises EngineRejected: it writes nothing."""
        raise EngineRejected(f"{self.status.model} {TASKS[self.capabilities.task].does}, and writes no text", 400)

    async def score(self, prompt: Prompt, answer: str) -> Score:
        """See `Engine.score`."""
        self.require_accepting()
        task = self.capabilities.task
        if not TASKS[task].scores_answers:
            return await super().score(prompt, answer)
        plain = await self._plain(
            replace(prompt, messages=[*prompt.messages, {"role": "assistant", "content": answer}], tools=())
        )
        *messages, said = plain.messages
        path, body = scores.question(task, messages, said)
        async with self._awake():
            return scores.score(await self._ask(path, body))

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See `Engine.embed`."""
        self.require_accepting()
        if self.capabilities.task != "embed":
            return await super().embed(texts)
        turns = Prompt([{"role": "user", "content": text} for text in texts])
        plain = await off_loop_if_large(prompt_work(turns), self._sanitizer.sanitize, turns)
        async with self._awake():
            path, body = scores.embedding([str(turn["content"]) for turn in plain.messages])
            reply = await self._ask(path, body)
        return await off_loop_if_large(len(reply), scores.embeddings, reply, len(texts))

    async def probe(self) -> None:
        """See `SingleServer.probe`: the smallest call of its task, in the place of a token."""
        await self._ask(*scores.PROBES[self.capabilities.task], is_probe=True)

    async def _ask(self, path: str, body: Json, is_probe: bool = False) -> bytes:
        salt = cache_salt.current()
        asked = {"model": self.name, **body, **({"cache_salt": salt} if salt else {})}
        async with self._post(path, orjson.dumps(asked), is_probe) as response:
            reply = await response.read()
            if response.status != 200:
                raise refusals.from_reply(response.status, reply)
        self.circuit_breaker.record_output()
        return reply
