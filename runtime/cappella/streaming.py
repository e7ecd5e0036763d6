"""A run as server-sent events: first byte at once, true deltas, a sign of life while it thinks, errors as events."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import orjson

from cappella.responses import Chunks
from cappella.schema import ChatRequest
from cappella.types import Emit, Event, FinalDelta, Run, RunStarted

KEEP_ALIVE_S = 10.0
EARLY_FAILURE_S = 0.5

StartRun = Callable[[Emit], Coroutine[Any, Any, Run]]
Describe = Callable[[Exception], Mapping[str, Any]]


class LiveRun:
    """A run in the background, and its events."""

    def __init__(self, start: StartRun) -> None:
        self._events: asyncio.Queue[Event | None] = asyncio.Queue()
        self.task = asyncio.create_task(start(self._events.put_nowait))
        self.task.add_done_callback(lambda _: self._events.put_nowait(None))

    async def events(self) -> AsyncGenerator[Event | None, None]:
        """Until the run has ended; None stands for a silence of KEEP_ALIVE_S."""
        while True:
            try:
                event = await asyncio.wait_for(self._events.get(), KEEP_ALIVE_S)
            except TimeoutError:
                yield None
                continue
            if event is None:
                return
            yield event

    async def settle(self) -> None:
        """Wait a moment, so that a run that fails at once can still answer with its own status code.

        Raises what the run raised.
        """
        await asyncio.wait({self.task}, timeout=EARLY_FAILURE_S)
        if self.task.done():
            self.task.result()

    async def cancel(self) -> None:
        """End the run and wait until its engines are free."""
        self.task.cancel()
        with suppress(asyncio.CancelledError, Exception):
            await self.task


@asynccontextmanager
async def live(start: StartRun) -> AsyncIterator[LiveRun]:
    """A run that ends with this context, however the context ends."""
    run = LiveRun(start)
    try:
        yield run
    finally:
        await run.cancel()


async def stream(start: StartRun, request: ChatRequest, describe: Describe) -> AsyncGenerator[bytes, None]:
    """The run's events as SSE bytes. Raises what the run raises within its first moments; later errors are events."""
    chunks = Chunks(request.model)
    async with live(start) as run:
        await run.settle()
        try:
            async for data in _frames(run, chunks, request):
                yield data
        except Exception as error:  # noqa: BLE001 - the status line is sent: an event is the only way left to say it
            yield _frame({"error": describe(error)})
    yield b"data: [DONE]\n\n"


async def _frames(run: LiveRun, chunks: Chunks, request: ChatRequest) -> AsyncGenerator[bytes, None]:
    async for event in run.events():
        if event is None:
            yield b": keep-alive\n\n"
        elif isinstance(event, RunStarted):
            chunks.started(event)
            yield _frame(chunks.role())
        elif isinstance(event, FinalDelta):
            yield _frame(chunks.text(event))
        if request.options.include_events and not isinstance(event, FinalDelta | None):
            yield _frame(chunks.progress(event))
    include_usage = request.stream_options is not None and request.stream_options.include_usage
    for chunk in chunks.end(run.task.result(), request.options, include_usage):
        yield _frame(chunk)


def _frame(data: Mapping[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(data) + b"\n\n"
