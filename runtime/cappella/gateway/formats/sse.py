"""Streams a run as server-sent events, with keep-alive comments; errors become events once the stream has begun."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, ClassVar, Protocol

import orjson

from cappella.ensemble.events import Event
from cappella.ensemble.run import Run
from cappella.ensemble.stream import StartRun, live
from cappella.gateway.reply_types import ErrorBody

KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": keep-alive\n\n"
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

    def frames(self, event: Event) -> Iterator[bytes]:
        """The frames of one event, often none."""
        ...

    def end(self, run: Run) -> Iterator[bytes]:
        """The last frames of a run that succeeded."""
        ...

    def failed(self, error: ErrorBody) -> Iterator[bytes]:
        """The last frames of a run that failed after the status line was sent."""
        ...


async def stream(start: StartRun, event_encoder: EventEncoder, describe: Describe) -> AsyncGenerator[bytes, None]:
    """The run's events as SSE bytes. Raises errors of the run's first moments; later ones become events."""
    async with live(start) as run:
        await run.raise_early_failure()
        try:
            async for events in run.events(KEEP_ALIVE_S):
                # Events that are ready together are written together, since every write is a system call.
                data = b"".join(data for event in events for data in event_encoder.frames(event))
                # An event that this client does not get still shows that the run goes on.
                yield data or event_encoder.keep_alive
            yield b"".join(event_encoder.end(run.result))
        except Exception as error:  # noqa: BLE001 - the status line is sent: only an event can report it
            yield b"".join(event_encoder.failed(describe(error)))


def frame(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One server-sent event, with a name if the API names its events."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(data) + b"\n\n"
