"""The events of a response in the background: stored as they come, and read from any of them on, by as many as want to."""

import asyncio
import re
from collections.abc import AsyncGenerator, Iterable

from cappella.gateway.formats import sse
from cappella.telemetry.response_store import Events, ResponseStore

CHUNK_BYTES = 64 << 10
"""What is in memory of one response's events: the rest is stored."""
MAX_BYTES = 16 << 20
"""Beyond this a response's deltas are not stored: the events that end an item have the whole of it."""
_NUMBER = re.compile(rb'"sequence_number":(\d+)')
_DELTA = re.compile(rb"event: [\w.]+\.delta\n")


class EventLog:
    """Events of one response, numbered from 0; each is a frame that has its number."""

    def __init__(self, response_id: str, store: ResponseStore) -> None:
        self._response_id = response_id
        self._store = store
        self._latest: list[bytes] = []
        self._latest_bytes = self._stored_bytes = 0
        self._first = 0
        self._is_closed = False
        self._readers: set[asyncio.Future[None]] = set()

    def add(self, frames: Iterable[bytes]) -> None:
        """Add the next events."""
        for frame in frames:
            self._latest.append(frame)
            self._latest_bytes += len(frame)
            if self._latest_bytes >= CHUNK_BYTES:
                self._store_latest()
                self._first, self._latest, self._latest_bytes = self._first + len(self._latest), [], 0
        self._wake()

    def close(self) -> None:
        """No event comes any more; what there is will be stored. Who reads now gets the last of it from memory."""
        self._store_latest()
        self._is_closed = True
        self._wake()

    async def frames(self, first: int) -> AsyncGenerator[bytes, None]:
        """The events from number `first` on until the log is closed, with what shows in a silence that it is not."""
        while True:
            if first < (stored_up_to := self._first):
                stored = await self._store.events(self._response_id, first)
                if stored:
                    yield numbered_from(stored, first)
                # Those that were dropped are missing. More may have been stored since.
                first = stored.last + 1 if stored else stored_up_to
            elif latest := self._latest[first - self._first :]:
                yield b"".join(latest)
                first += len(latest)
            elif self._is_closed:
                return
            elif not await self._changes():
                yield sse.KEEP_ALIVE

    def _store_latest(self) -> None:
        frames, last = self._latest, self._first + len(self._latest) - 1
        kept = frames if self._stored_bytes <= MAX_BYTES else [each for each in frames if not _DELTA.match(each)]
        if kept:
            self._store.add_events(self._response_id, Events(self._first, last, kept))
        self._stored_bytes += sum(map(len, kept))

    async def _changes(self) -> bool:
        """Wait for an event or the end; False if none comes before the reader needs to be told so."""
        change = asyncio.get_running_loop().create_future()
        self._readers.add(change)
        try:
            await asyncio.wait({change}, timeout=sse.KEEP_ALIVE_S)
        finally:
            self._readers.discard(change)
        return change.done()

    def _wake(self) -> None:
        for reader in self._readers:
            if not reader.done():
                reader.set_result(None)


async def stored_frames(response_id: str, store: ResponseStore, first: int) -> AsyncGenerator[bytes, None]:
    """The stored events of a response from number `first` on."""
    while stored := await store.events(response_id, first):
        yield numbered_from(stored, first)
        first = stored.last + 1


def numbered_from(events: Events, first: int) -> bytes:
    """Those of the events whose number is at least `first`."""
    frames = events.frames if events.first >= first else [each for each in events.frames if number_of(each) >= first]
    return b"".join(frames)


def number_of(frame: bytes) -> int:
    """The number that an event has."""
    found = _NUMBER.search(frame)
    return int(found[1]) if found else -1
