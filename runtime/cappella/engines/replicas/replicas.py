"""One model on several servers: each call goes to one of them, and to another if that one dies before its first token."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager, nullcontext, suppress
from dataclasses import replace
from typing import TypeVar

from cappella.engines import refusals
from cappella.engines.base import Embeddings, Engine, ForwardedReply, Score, SingleServer, TokenCount
from cappella.engines.replicas import prefixes
from cappella.engines.replicas.first_output import beginning
from cappella.engines.replicas.joint_status import joint_status
from cappella.engines.replicas.prefixes import Blocks
from cappella.engines.replicas.replica import Replica
from cappella.engines.replicas.routing import Router, Tries
from cappella.engines.status import EngineStatus
from cappella.errors import EngineError, EngineNotReady
from cappella.types import Capabilities, Chunk, Prompt, Sampling

T = TypeVar("T")


class Replicas:
    """An `EngineServer` over the replicas of one model, which `add` and `remove` change while calls are in flight.

    It neither starts nor watches servers: whoever adds a replica keeps the status of its engine, by `Attachment`, `Lifecycle`
    or otherwise. `Router` says where a call goes. A call whose replica fails before the first token is repeated on another, on each
    once at most (`Tries`); one that has given a token fails with its replica. Without a replica that accepts calls it raises
    EngineNotReady. Closing a call's generator, or leaving its context, aborts it at the replica that runs it.

        big = Replicas("big", capabilities, [Replica("big-1", first, 64), Replica("big-2", second, 64)])
        big.add(Replica("big-3", third, 64))    # is called once its engine's status is ready
        await big.remove("big-1", within_s=30)  # gets no more calls; returns when its last one has ended, or after that time
    """

    def __init__(self, model: str, capabilities: Capabilities, replicas: Iterable[Replica] = ()) -> None:
        self.model = model
        self._capabilities = capabilities
        self._router = Router()
        self._replicas = {each.name: each for each in replicas}

    @property
    def replicas(self) -> Sequence[Replica]:
        """Those that may be called, ready or not."""
        return list(self._replicas.values())

    def add(self, replica: Replica) -> None:
        """Call this replica, too; its name must be new."""
        if replica.name in self._replicas:
            raise ValueError(f"{self.model} has a replica {replica.name} already")
        self._replicas[replica.name] = replica

    async def remove(self, name: str, within_s: float) -> None:
        """Call a replica no more, and wait for its calls in flight for at most `within_s`; the caller then closes its engine."""
        replica = self._replicas.pop(name)
        self._router.forget(name)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await replica.calls.end()

    @property
    def status(self) -> EngineStatus:
        """See `Engine.status`: a copy of the best replica's status now."""
        return joint_status(self.model, {each.name: each.engine.status for each in self.replicas})

    @property
    def in_flight(self) -> int:
        """See `Engine.in_flight`."""
        return sum(each.calls.count for each in self.replicas)

    @property
    def max_calls(self) -> int:
        """What those that accept calls run at once; without any, what all do."""
        able = [each for each in self.replicas if each.accepts_calls]
        return sum(each.max_num_seqs for each in able or self.replicas)

    @property
    def capabilities(self) -> Capabilities:
        """See `Engine.capabilities`."""
        return self._capabilities

    @contextmanager
    def keep_awake(self) -> Iterator[None]:
        """See `Engine.keep_awake`: one of them is enough, since calls wake more when those that are awake are full."""
        chosen = self._router.least_busy(self.replicas)
        with chosen.keep_awake() if chosen else nullcontext():
            yield

    async def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """See `Engine.chat`."""
        blocks, tries, has_begun = await self._blocks(prefixes.blocks_of, prompt), Tries(), False
        while True:
            replica = self._choose(tries, blocks)
            try:
                with replica.calls.one():
                    async with aclosing(replica.engine.chat(prompt, sampling)) as chunks:
                        async for chunk in chunks:
                            if not has_begun and _is_output(chunk):
                                has_begun = True
                                replica.calls.note_token()
                            yield chunk
                return
            except EngineError as error:
                if has_begun:
                    raise
                tries.failed(replica, error)

    @asynccontextmanager
    async def forward(
        self, path: str, body: bytes, sending: Callable[[], None] = lambda: None
    ) -> AsyncIterator[ForwardedReply]:
        """See `EngineServer.forward`. The reply is there with its first output, so that it can come from another replica until then."""
        blocks, tries, has_begun = await self._blocks(prefixes.blocks_of_body, body), Tries(), False
        while True:
            replica = self._choose(tries, blocks)
            try:
                with replica.calls.one():
                    async with replica.engine.forward(path, body, sending) as reply:
                        first = await self._first(reply, tries)
                        has_begun = True
                        if reply.status_code < 400:
                            replica.calls.note_token()
                        yield replace(reply, body=_resumed(first, reply.body))
                return
            except EngineError as error:
                if has_begun:
                    raise
                tries.failed(replica, error)

    async def _first(self, reply: ForwardedReply, tries: Tries) -> bytes:
        """What of a reply is held back. Raises EngineError for one that another replica, if there is one, would not give."""
        if reply.status_code >= 400:
            refusal = b"".join([piece async for piece in reply.body])
            if not refusals.may_blame_request(reply.status_code) and len(tries.left(self.replicas)) > 1:
                raise refusals.from_reply(reply.status_code, refusal)
            return refusal
        if reply.content_type == "text/event-stream":
            return await beginning(reply.body)
        return await anext(reply.body, b"")

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """See `Engine.count_tokens`."""
        return await self._on_one(lambda engine: engine.count_tokens(prompt))

    async def score(self, prompt: Prompt, answer: str) -> Score:
        """See `Engine.score`."""
        return await self._on_one(lambda engine: engine.score(prompt, answer))

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See `Engine.embed`."""
        return await self._on_one(lambda engine: engine.embed(texts))

    def supports(self, path: str) -> bool:
        """See `EngineServer.supports`."""
        return all(each.engine.supports(path) for each in self.replicas)

    @property
    def servers(self) -> Mapping[str, SingleServer]:
        """See `EngineServer.servers`."""
        return {each.name: each.engine for each in self.replicas}

    async def close(self) -> None:
        """See `EngineServer.close`."""
        await asyncio.gather(*(each.engine.close() for each in self.replicas))

    async def _blocks(self, read: Callable[[T], Awaitable[Blocks]], asked: T) -> Blocks:
        """The blocks of a prompt, which one replica alone does not need."""
        return await read(asked) if len(self._replicas) > 1 else ()

    def _choose(self, tries: Tries, blocks: Blocks = ()) -> Replica:
        replica = self._router.choose(tries.left(self.replicas), blocks)
        if replica is None:
            raise EngineNotReady(f"{self.model} is {self.status.state}")
        return replica

    async def _on_one(self, call: Callable[[Engine], Awaitable[T]]) -> T:
        """The result of a call that gives no tokens, from the first replica on which it succeeds."""
        tries = Tries()
        while True:
            replica = self._choose(tries)
            try:
                with replica.calls.one():
                    return await call(replica.engine)
            except EngineError as error:
                tries.failed(replica, error)


def _is_output(chunk: Chunk) -> bool:
    """Whether a call that has given this can no longer be repeated."""
    return bool(
        chunk.content or chunk.reasoning or chunk.tool_calls or chunk.logprobs or chunk.finish_reason or chunk.usage
    )


async def _resumed(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    if first:
        yield first
    async for piece in rest:
        yield piece
