"""Streams a run as server-sent events, with keep-alive comments; errors become events once the stream has begun."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import orjson

from cappella.ensemble.events import Event
from cappella.ensemble.run import Run
from cappella.ensemble.stream import LiveRun, StartRun, live
from cappella.gateway.reply_types import ErrorBody

KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": keep-alive\n"
"""A comment without the blank line that would end an event: some clients read that as an event without data."""
DONE = b"data: [DONE]\n\n"

Describe = Callable[[Exception], ErrorBody]
"""Makes the `error` object of a reply."""


class EventEncoder(Protocol):
    """Encodes a run as one API's server-sent events, or as another stream of this `media_type`."""

    media_type: ClassVar[str] = "text/event-stream"

    @property
    def keep_alive(self) -> bytes:
        """What shows that the run goes on."""
        return KEEP_ALIVE

    def waiting(self, run_id: str) -> bytes:
        """What a client gets at first while its run still waits for its engines."""
        return self.keep_alive

    def frames(self, event: Event) -> Iterator[bytes]:
        """The frames of one event, often none."""
        ...

    def end(self, run: Run) -> Iterator[bytes]:
        """The last frames of a run that succeeded."""
        ...

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        """The last frames of a run that failed after the status line was sent."""
        ...


async def stream(
    start: StartRun,
    run_id: str,
    event_encoder: EventEncoder,
    describe: Describe,
    require_possible: Callable[[], object] = lambda: None,
) -> AsyncGenerator[bytes, None]:
    """The events of the run with this id as SSE bytes. Raises errors of its first moments; later ones become events.

    Its first bytes come after those moments, also if it waits in a queue for longer; before that, `require_possible`
    raises what would fail it whenever it began.
    """
    async with live(start) as run:
        await run.raise_early_failure()
        if not (has_begun := run.has_begun):
            require_possible()
        try:
            if not has_begun:
                yield event_encoder.waiting(run_id)
            async for data in _audible(run, event_encoder):
                yield data
            yield b"".join(event_encoder.end(run.result))
        except Exception as error:  # noqa: BLE001 - the status line is sent: only an event can report it
            yield b"".join(event_encoder.failed(describe(error)))


async def _audible(run: LiveRun, event_encoder: EventEncoder) -> AsyncIterator[bytes]:
    """The frames of the run's events, and a comment whenever the client has got nothing for KEEP_ALIVE_S."""
    silence = _Silence()
    async for events in run.events(silence.left_s):
        # Events that are ready together are written together, since every write is a system call.
        data = b"".join(data for event in events for data in event_encoder.frames(event))
        if data or silence.left_s() <= 0:
            yield data or event_encoder.keep_alive
            silence.broken()


class _Silence:
    """How long the client has got nothing."""

    def __init__(self) -> None:
        self.broken()

    def broken(self) -> None:
        self._ends_at = asyncio.get_running_loop().time() + KEEP_ALIVE_S

    def left_s(self) -> float:
        """Seconds until it needs a comment."""
        return self._ends_at - asyncio.get_running_loop().time()


def frame(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event, with a name if the API names its events."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(data) + b"\n\n"
