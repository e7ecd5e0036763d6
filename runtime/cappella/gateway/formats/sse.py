"""A run as server-sent events: first byte at once, true deltas, a sign of life while it thinks, errors as events."""

from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from typing import Any, Protocol

import orjson

from cappella.ensemble.events import Event
from cappella.ensemble.run import Run
from cappella.ensemble.stream import StartRun, live

KEEP_ALIVE_S = 10.0
KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"

Describe = Callable[[Exception], Mapping[str, Any]]


class EventEncoder(Protocol):
    """How one API says what happens in a run."""

    def frames(self, event: Event) -> Iterator[bytes]:
        """What is said of one event, often nothing."""
        ...

    def end(self, run: Run) -> Iterator[bytes]:
        """What is said when the run has ended well."""
        ...

    def failed(self, error: Mapping[str, Any]) -> Iterator[bytes]:
        """What is said of an error, given in OpenAI's form, when the status line is long sent."""
        ...


async def stream(start: StartRun, event_encoder: EventEncoder, describe: Describe) -> AsyncGenerator[bytes, None]:
    """The run's events as SSE bytes. Raises what the run raises within its first moments; later errors are events."""
    async with live(start) as run:
        await run.raise_early_failure()
        try:
            async for events in run.events(KEEP_ALIVE_S):
                # What happened together goes out together, since every write is a system call.
                data = b"".join(data for event in events for data in event_encoder.frames(event))
                # What this client is not told of is a sign of life too.
                yield data or KEEP_ALIVE
            yield b"".join(event_encoder.end(run.result))
        except Exception as error:  # noqa: BLE001 - the status line is sent: an event is the only way left to say it
            yield b"".join(event_encoder.failed(describe(error)))


def frame(data: Mapping[str, Any], event: str | None = None) -> bytes:
    """One event; with a name where the API gives its events names."""
    name = f"event: {event}\n".encode() if event else b""
    return name + b"data: " + orjson.dumps(data) + b"\n\n"
