"""Engines for one row of a batch: a call that is stored is not made again, and any other waits for a place."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    ExitStack,
    aclosing,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from dataclasses import replace
from typing import Any, TypeVar

import orjson

from cappella.background import background
from cappella.batch import steps
from cappella.batch.pauses import jittered
from cappella.batch.phases import DOWN, Phases, Place
from cappella.batch.progress import RowMeter
from cappella.engines import waiting
from cappella.engines.base import Embeddings, EngineServer, ForwardedReply, Score, TokenCount
from cappella.engines.context_size import prompt_work
from cappella.engines.refusals import may_blame_request
from cappella.engines.status import EngineStatus
from cappella.engines.waiting import WaitReason
from cappella.errors import EngineBroke, EngineNotReady, EngineOverdue, EngineRejected
from cappella.threads import joined, off_loop_if_large
from cappella.types import Capabilities, Chunk, Json, Prompt, Sampling, Usage

RETRY_AFTER_S = (1.0, 5.0, 15.0)
"""About the pauses before a call is made again: its engine's process may be starting, or a server limits our rate."""
PIECE_BYTES = 1 << 20
NEVER_S = 1e8
"""Years: a limit that no row reaches, since nothing can be reckoned with infinity."""
_ABOUT_TO_BE_UP = ("waiting", "loading", "unhealthy", "restarting")

T = TypeVar("T")
Keep = Callable[[bytes, bytes], Awaitable[None]]
"""Stores what came of a call under its key."""


class _GaveWay(Exception):
    """An online request needed the engine."""


class RowCalls:
    """The calls of one row, the number `order` of all rows: those that are `stored`, and how `keep` stores more.

    `deadline_s` limits the time at work of its calls, one after another; those that are made side by side count once.
    """

    def __init__(self, phases: Phases, order: int, stored: Mapping[bytes, bytes], keep: Keep, meter: RowMeter) -> None:
        self.phases = phases
        self.meter = meter
        self.order = order
        self.deadline_s = NEVER_S
        self.worked_s = 0.0
        self.forwarded_size = 1
        self.replayed: list[Usage] = []
        self._stored = stored
        self._keep = keep
        self._numbers: Counter[bytes] = Counter()

    def numbered(self, key: bytes) -> bytes:
        """The key of the next call that asks the same."""
        self._numbers[key] += 1
        return key + self._numbers[key].to_bytes(2)

    def found(self, key: bytes) -> Json | None:
        """What is stored of a call; its usage is noted in `replayed`."""
        if key not in self._stored:
            return None
        step: Json = orjson.loads(self._stored[key])
        self.replayed += steps.usages_of(step)
        return step

    async def keep(self, key: bytes, step: Json) -> None:
        await self._keep(key, orjson.dumps(step))


class RecordedEngine:
    """An engine as one row of a batch calls it; `host` is the name of the model that hosts it."""

    def __init__(
        self,
        name: str,
        host: str,
        engine: EngineServer,
        calls: RowCalls,
        retry_after_s: Sequence[float] = RETRY_AFTER_S,
    ) -> None:
        self._name = name
        self._host = host
        self._engine = engine
        self._calls = calls
        self._retry_after_s = retry_after_s

    @property
    def status(self) -> EngineStatus:
        """An engine that is about to be up counts as ready: its calls wait for it."""
        found = self._engine.status
        return replace(found, state="ready") if found.state in _ABOUT_TO_BE_UP else found

    @property
    def in_flight(self) -> int:
        return self._engine.in_flight

    @property
    def capabilities(self) -> Capabilities:
        return self._engine.capabilities

    def supports(self, path: str) -> bool:
        return self._engine.supports(path)

    def keep_awake(self) -> AbstractContextManager[None]:
        """Only a call that has a place wakes it: the row may wait for hours."""
        return nullcontext()

    async def chat(self, prompt: Prompt, sampling: Sampling) -> AsyncGenerator[Chunk, None]:
        """As `Engine.chat`; it yields once the completion is finished and stored."""

        async def make() -> Json:
            async with aclosing(self._engine.chat(prompt, sampling)) as chunks:
                return steps.from_chunks([chunk async for chunk in chunks])

        key = await off_loop_if_large(prompt_work(prompt), steps.chat_key, self._name, prompt, sampling)
        for chunk in steps.chunks_of(await self._step(key, prompt.samples, make)):
            yield chunk

    async def score(self, prompt: Prompt, answer: str) -> Score:
        """See `Engine.score`."""

        async def make() -> Json:
            return steps.from_score(await self._engine.score(prompt, answer))

        key = steps.key_of("score", self._name, prompt, answer)
        return steps.score_of(await self._step(key, 1, make))

    async def embed(self, texts: Sequence[str]) -> Embeddings:
        """See `Engine.embed`."""

        async def make() -> Json:
            return steps.from_embeddings(await self._engine.embed(texts))

        key = steps.key_of("embed", self._name, list(texts))
        return steps.embeddings_of(await self._step(key, len(texts), make))

    async def count_tokens(self, prompt: Prompt) -> TokenCount:
        """See `Engine.count_tokens`. It is not stored: it takes no sequence, and its result is always the same."""
        return await self._made(0, lambda: self._engine.count_tokens(prompt))

    @asynccontextmanager
    async def forward(
        self, path: str, body: bytes, sending: Callable[[], None] = lambda: None
    ) -> AsyncIterator[ForwardedReply]:
        """As `EngineServer.forward`; the reply is whole. It is not stored, since it ends the row."""

        async def make() -> tuple[int, str, bytes]:
            async with self._engine.forward(path, body, sending) as reply:
                pieces = [piece async for piece in reply.body]
                return reply.status_code, reply.content_type, await joined(pieces)

        status_code, content_type, whole = await self._made(self._calls.forwarded_size, make)
        # A pooling model writes none, and its reply may have 40 MB of numbers.
        writes = self._engine.capabilities.writes
        tokens = await off_loop_if_large(len(whole), steps.tokens_of_reply, whole) if writes else 0
        self._calls.meter.finished(self._host, tokens)
        yield ForwardedReply(status_code, content_type, _in_pieces(whole), lambda: None)

    async def _step(self, key: bytes, size: int, make: Callable[[], Awaitable[Json]]) -> Json:
        """What came of the call: as it is stored, or as it is made now. Raises EngineError."""
        key = self._calls.numbered(key)
        step = self._calls.found(key)
        if step is None:
            try:
                step = await self._made(size, make)
            except EngineRejected as error:
                if not may_blame_request(error.status_code):
                    raise
                step = steps.from_refusal(error)
            self._calls.meter.finished(self._host, steps.tokens_of(step))
            await self._calls.keep(key, step)
        else:
            self._calls.meter.replayed(self._host)
        steps.require_no_refusal(step)
        return step

    async def _made(self, size: int, make: Callable[[], Awaitable[T]]) -> T:
        """The result of the call, made again where it gave way, or failed for no fault of its own. Raises EngineError."""
        pauses, began_s = list(self._retry_after_s), self._calls.worked_s
        while True:
            try:
                return await self._in_place(size, make, began_s)
            except _GaveWay:
                continue
            except (EngineBroke, EngineNotReady, EngineRejected) as error:
                is_its_fault = isinstance(error, EngineRejected) and may_blame_request(error.status_code)
                if is_its_fault or not pauses or self._engine.status.state in DOWN:
                    raise
            with self._wait():
                await asyncio.sleep(jittered(pauses.pop(0)))

    async def _in_place(self, size: int, make: Callable[[], Awaitable[T]], began_s: float) -> T:
        """The result of one try, which begins once there is a place. Raises _GaveWay, and EngineError."""
        calls, left_s = self._calls, self._calls.deadline_s - began_s
        async with AsyncExitStack() as stack:
            with self._wait(), calls.meter.waits(self._host):
                place = await stack.enter_async_context(calls.phases.place(self._host, size, calls.order))
            stack.enter_context(calls.meter.runs(self._host))
            try:
                async with waiting.timeout(max(0.0, left_s)) as limit:
                    try:
                        return await self._unless_gone(make, place)
                    finally:
                        if not place.gives_way.done():
                            calls.worked_s = max(calls.worked_s, calls.deadline_s - limit.left_s)
            except TimeoutError as error:
                raise EngineOverdue(
                    f"{self._name} had not finished at the deadline of {calls.deadline_s:g} s"
                ) from error

    async def _unless_gone(self, make: Callable[[], Awaitable[T]], place: Place) -> T:
        with self._not_counting_waits():
            async with background(make()) as task:
                either: set[asyncio.Future[Any]] = {task, place.gives_way}
                await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
                if task.done():
                    return task.result()
        raise _GaveWay

    @contextmanager
    def _wait(self) -> Iterator[None]:
        """A wait that is no work, and is told to the run."""
        with waiting.told(waiting.teller(self._name), "batch"), waiting.paused():
            yield

    @contextmanager
    def _not_counting_waits(self) -> Iterator[None]:
        """The engine's own waits, for a swap, say, are no work either."""
        tell, pauses = waiting.teller(self._name), ExitStack()

        def listen(_: str, reason: WaitReason | None) -> None:
            tell(reason)
            if reason:
                pauses.enter_context(waiting.paused())
            else:
                pauses.close()

        with waiting.listening(listen), pauses:
            yield


async def _in_pieces(whole: bytes) -> AsyncIterator[bytes]:
    for begin in range(0, max(1, len(whole)), PIECE_BYTES):
        yield whole[begin : begin + PIECE_BYTES]
        # What is done with a piece takes its time, and others want to be served.
        await asyncio.sleep(0)
