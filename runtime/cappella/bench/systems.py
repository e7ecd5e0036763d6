"""The systems that a benchmark compares: ways to answer a prompt, all timed from the outside."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol, Self

import aiohttp
import orjson

from cappella import sse
from cappella.ensemble import prompts
from cappella.errors import ConfigError
from cappella.types import Json, Message


@dataclass(frozen=True, slots=True)
class Sizes:
    """The shape of one run: seats on the panel, and tokens per answer (None: no limit).

    The final answer has `answer_tokens`. A member's answer has 0.5 to 1.5 times as many, since members of a real panel
    do not stop at the same moment.
    """

    panel: int
    answer_tokens: int | None

    def of_member(self, member: str, prompt: str) -> int | None:
        if self.answer_tokens is None:
            return None
        return max(1, round(self.answer_tokens * Random(f"{member} {prompt}").uniform(0.5, 1.5)))


@dataclass(frozen=True, slots=True)
class Reply:
    """`trace` is the `fusion` object and the `usage` of a Cappella reply; None from anything else."""

    first_token_s: float
    total_s: float
    tokens: int
    trace: Json | None = None


class System(Protocol):
    """A way to answer. `ask` raises BenchError without an answer."""

    name: str

    async def ask(self, prompt: str, sizes: Sizes) -> Reply: ...


class BenchError(Exception):
    """A reply that must not be counted."""


class Streamed:
    """An OpenAI-compatible server, asked for a stream. `extra` are more fields of the body."""

    def __init__(self, name: str, http: aiohttp.ClientSession, url: str, model: str, extra: Json) -> None:
        self.name = name
        self._http = http
        self._url = url
        self._model = model
        self._extra = extra

    def body(self, prompt: str, sizes: Sizes) -> dict[str, Any]:
        limit = {} if sizes.answer_tokens is None else {"max_completion_tokens": sizes.answer_tokens}
        messages = [{"role": "user", "content": prompt}]
        options = {"stream": True, "stream_options": {"include_usage": True}, "temperature": 0}
        return {"model": self._model, "messages": messages, **options, **limit, **self._extra}

    async def ask(self, prompt: str, sizes: Sizes) -> Reply:
        began = time.monotonic()
        first, last = None, {}
        data = orjson.dumps(self.body(prompt, sizes))
        headers = {"Content-Type": "application/json"}
        async with self._http.post(f"{self._url}/v1/chat/completions", data=data, headers=headers) as response:
            if response.status != 200:
                raise BenchError(f"{self.name}: {response.status} {(await response.text())[:300]}")
            reader = sse.Reader()
            async for piece in response.content.iter_any():
                for last in (orjson.loads(data) for data in reader.feed(piece) if data != sse.DONE):
                    if "error" in last:
                        raise BenchError(f"{self.name}: {last['error']['message']}")
                    if first is None and last["choices"] and last["choices"][0]["delta"].get("content"):
                        first = time.monotonic() - began
        if first is None or "usage" not in last:
            raise BenchError(f"{self.name}: the stream has no text, or does not end with usage")
        trace = {"fusion": last["fusion"], "usage": last["usage"]} if "fusion" in last else None
        return Reply(first, time.monotonic() - began, written(last["usage"]), trace)


class Ensemble(Streamed):
    """Cappella. `fusion` holds further fields of each request."""

    def __init__(
        self, name: str, http: aiohttp.ClientSession, url: str, ensemble: str, members: Sequence[str], fusion: Json
    ) -> None:
        super().__init__(name, http, url, f"cappella/{ensemble}", {})
        self._members = members
        self._fusion = fusion

    def body(self, prompt: str, sizes: Sizes) -> dict[str, Any]:
        seats = seated(self._members, sizes.panel)
        lengths = [(name, sizes.of_member(name, prompt)) for name in dict.fromkeys(seats)]
        overrides = [{"model": name, "max_completion_tokens": tokens} for name, tokens in lengths if tokens]
        fusion = {"analysis_models": seats, "temperature": 0, "analysis_overrides": overrides, **self._fusion}
        return {**super().body(prompt, sizes), "fusion": fusion}


class Naive:
    """A script as a user would write it with the official client: gather the answers, then ask the judge.

    Its judge reads the same prompt as Cappella's, so that only the scheduling differs.
    """

    def __init__(self, name: str, urls: Mapping[str, str], members: Sequence[str], judge: str) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise ConfigError("this Python", "openai is not installed", "pip install 'cappella[bench]'") from error
        self.name = name
        self._clients = {
            model: AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)
            for model, url in urls.items()
        }
        self._members = members
        self._judge = judge

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        for client in self._clients.values():
            await client.close()

    async def ask(self, prompt: str, sizes: Sizes) -> Reply:
        began = time.monotonic()
        question: list[Message] = [{"role": "user", "content": prompt}]
        members = seated(self._members, sizes.panel)
        asked = (self._answer(member, question, sizes.of_member(member, prompt)) for member in members)
        messages = prompts.final_messages(question, await asyncio.gather(*asked), "0123abcd")
        tokens = sizes.answer_tokens
        stream = await self._create(self._judge, messages, tokens, stream=True, stream_options={"include_usage": True})
        first, count = None, 0
        async for chunk in stream:
            count = chunk.usage.completion_tokens if chunk.usage else count
            if first is None and chunk.choices and chunk.choices[0].delta.content:
                first = time.monotonic() - began
        if first is None:
            raise BenchError(f"{self.name}: the judge wrote nothing")
        return Reply(first, time.monotonic() - began, count)

    async def _answer(self, member: str, question: Sequence[Json], tokens: int | None) -> str:
        reply = await self._create(member, question, tokens)
        return str(reply.choices[0].message.content)

    async def _create(self, model: str, messages: Sequence[Json], tokens: int | None, **more: Any) -> Any:
        limit = {} if tokens is None else {"max_completion_tokens": tokens}
        create: Any = self._clients[model].chat.completions.create
        return await create(model=model, messages=list(messages), temperature=0, **limit, **more)


def seated(members: Sequence[str], count: int) -> list[str]:
    """`count` seats, the members in turn."""
    return [members[seat % len(members)] for seat in range(count)]


def written(usage: Json) -> int:
    """Tokens of the final answer alone."""
    return int(usage["completion_tokens"])
