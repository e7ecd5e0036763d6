"""Responses that the server keeps: later requests continue their conversations, and those in the background run here."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import orjson

from cappella.ensemble.events import Emit, Event, RunStarted
from cappella.ensemble.pipeline import new_run_id
from cappella.ensemble.run import Run
from cappella.errors import CappellaError, Overloaded, RequestError, UnknownRun
from cappella.gateway import kept_items
from cappella.gateway.body_memory import HeldBody
from cappella.gateway.event_log import EventLog, stored_frames
from cappella.gateway.formats.response_events import ENDS
from cappella.gateway.formats.response_output import id_of
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.gateway.formats.sse import Describe, frame
from cappella.gateway.reply_types import Response
from cappella.gateway.request import Incoming
from cappella.telemetry import records
from cappella.telemetry.records import RequestRecord
from cappella.telemetry.response_store import Found, ResponseStore, StoredResponse, json_size
from cappella.types import Json

PATH = "/v1/responses"
RETRY_AFTER_S = 10
HOW_TO_KEEP = "set server.runs with content: true in the server's config"
STOPPED = {"code": "server_error", "message": "The server was stopped before this response had ended."}
LOST = {"code": "server_error", "message": "What became of this response could not be written."}
_OK = 200
T = TypeVar("T")
_NEEDS_STORE = ("previous_response_id", "background")


@dataclass(frozen=True, slots=True)
class Recalled:
    """A request's body whose references to items are those items, and the conversation that it continues.

    `size_bytes` is what both add to the body.
    """

    wire: Json
    earlier: Sequence[Json] = ()
    size_bytes: int = 0
    ignored: Sequence[str] = ()


async def recalled(responses: "KeptResponses | None", incoming: Incoming, max_bytes: int) -> Recalled:
    """The request with what it names of kept responses. Raises RequestError where none are kept."""
    if incoming.path == PATH and responses:
        found = await responses.recall(incoming.wire, incoming.key_id, max_bytes)
        incoming.memory.add(found.size_bytes)
        return found
    if incoming.path == PATH:
        _require_nothing_kept(incoming.wire)
        # The answer is the same, and some clients always ask for it.
        return Recalled(incoming.wire, ignored=("store",) if incoming.wire.get("store") else ())
    return Recalled(incoming.wire)


def _require_nothing_kept(wire: Mapping[str, Any]) -> None:
    for name in _NEEDS_STORE:
        if wire.get(name):
            instead = f"or send {name}: false" if name != "previous_response_id" else "or send the earlier items"
            raise RequestError(f"{name} needs responses that are kept: {HOW_TO_KEEP}, {instead}.", name)


@dataclass(slots=True, eq=False)
class _Background:
    """A response that waits or runs; `events` are those of its stream, if it has one."""

    key_id: str | None
    events: EventLog | None
    task: asyncio.Task[None] | None = None


class KeptResponses:
    """The kept responses of one server; of one key at most `max_background` wait or run in the background.

    `observe` gets the record of each that has ended there.
    """

    def __init__(
        self, store: ResponseStore, max_background: int, describe: Describe, observe: Callable[[RequestRecord], None]
    ) -> None:
        self._store = store
        self._max_background = max_background
        self._describe = describe
        self._observe = observe
        self._running: dict[str, _Background] = {}

    async def recall(self, wire: Json, key_id: str | None, max_bytes: int) -> Recalled:
        """What the request names of kept responses. Raises RequestError for what is none of this key, or too large."""
        previous, said = wire.get("previous_response_id"), wire.get("input")
        earlier = await kept_items.conversation(self._store, previous, key_id) if isinstance(previous, str) else None
        size = earlier.size_bytes if earlier else 0
        if isinstance(said, list) and (named := await kept_items.named(self._store, said, key_id)):
            sizes = {name: json_size(item) for name, item in named.items()}
            ids = [kept_items.named_by(item) for item in said]
            size += sum(sizes.get(name, 0) for name in ids)
            wire = {**wire, "input": [named.get(name, item) for name, item in zip(ids, said, strict=True)]}
        if size > max_bytes:
            message = f"What is kept of the conversation is larger than {max_bytes} bytes (server.max_body_bytes)."
            raise RequestError(message, "previous_response_id" if earlier else "input", "body_too_large")
        return Recalled(wire, earlier.items if earlier else (), size)

    def keep(self, request: ResponsesRequest, key_id: str | None, size_bytes: int) -> None:
        """Keep the response to this request, whose conversation has so many bytes, unless it asks for none."""
        if request.store is not False:
            request.keep_with(
                lambda response: self._store.add(
                    lambda: _stored(request, response, key_id), size_bytes + json_size(response["output"])
                )
            )

    async def start(
        self,
        request: ResponsesRequest,
        key_id: str | None,
        body: HeldBody,
        run: Callable[[Emit, str], Coroutine[Any, Any, Run]],
    ) -> Response:
        """Run it in the background; returns the queued response. Raises Overloaded and RunsUnavailable."""
        self._require_room(key_id)
        run_id = new_run_id()
        response_id = id_of("resp", run_id)
        events = EventLog(response_id, self._store) if request.stream else None
        background = self._running[response_id] = _Background(key_id, events)
        queued = request.response(run_id, "queued", [])
        request.keep_with(lambda response: self._store.finish(response_id, dict(response)))
        try:
            await self._store.create(lambda: _stored(request, queued, key_id))
        except BaseException:
            del self._running[response_id]
            raise
        body.outlives_request = True
        background.task = task = asyncio.create_task(self._carry_out(request, run_id, run, events))
        task.add_done_callback(lambda ended: self._ended(response_id, body, ended))
        return queued

    async def find(self, response_id: str, key_id: str | None) -> Found:
        """The response. Raises UnknownRun."""
        is_running = response_id in self._running
        found = await self._store.find(response_id, key_id)
        if found and found.is_own and not found.is_finished and not is_running:
            # Its end could not be written.
            self._store.end(response_id, "failed", LOST)
            lost = orjson.dumps({**orjson.loads(found.shown), "status": "failed", "error": LOST})
            found = replace(found, status="failed", shown=lost)
        return _known(found, response_id)

    async def items(self, response_id: str, key_id: str | None) -> list[Json]:
        """The items that the response answers. Raises UnknownRun."""
        return _known(await self._store.items(response_id, key_id), response_id)

    async def events(self, response_id: str, key_id: str | None, first: int = 0) -> AsyncGenerator[bytes, None]:
        """The events of the response's stream from number `first` on, until it ends. Raises UnknownRun and RequestError."""
        await self.find(response_id, key_id)
        running = self._running.get(response_id)
        events = running.events if running else None
        if not events and not await self._store.last_events(response_id):
            message = (
                f"{response_id} has no stream: only one with background: true and stream: true has. Leave stream out."
            )
            raise RequestError(message, "stream")
        frames = events.frames(first) if events else stored_frames(response_id, self._store, first)
        return self._with_end(frames, response_id, key_id, first)

    async def cancel(self, response_id: str, key_id: str | None) -> bytes:
        """Cancel a response in the background; one that has ended stays as it is. Raises UnknownRun and RequestError."""
        found = await self.find(response_id, key_id)
        if not found.in_background:
            raise RequestError(f"{response_id} does not run in the background: close its connection.", "response_id")
        if not found.is_finished:
            self._store.end(response_id, "cancelled")
            await self._end(response_id)
        return (await self.find(response_id, key_id)).shown

    async def delete(self, response_id: str, key_id: str | None) -> None:
        """Delete the response, and end its run. Raises UnknownRun."""
        _known(await self._store.delete(response_id, key_id) or None, response_id)
        await self._end(response_id)

    async def stop(self) -> None:
        """End all that runs in the background, as failed."""
        await asyncio.gather(*(self._end(response_id) for response_id in list(self._running)))

    def _require_room(self, key_id: str | None) -> None:
        running = sum(each.key_id == key_id for each in self._running.values())
        if running >= self._max_background:
            message = f"{running} responses of this key are in the background, the most that one may have"
            raise Overloaded(f"{message} (server.runs.max_background). Try again later.", RETRY_AFTER_S)

    async def _carry_out(
        self,
        request: ResponsesRequest,
        run_id: str,
        run: Callable[[Emit, str], Coroutine[Any, Any, Run]],
        events: EventLog | None,
    ) -> None:
        """Run it, with a record of its own: the request's has ended with its reply."""
        record = replace(records.current(), route=PATH, status_code=_OK, is_background=True)
        records.begin(record)
        encoder = request.event_encoder()

        def note(event: Event) -> None:
            if isinstance(event, RunStarted):
                self._store.begin(id_of("resp", run_id))
            if events:
                events.add(encoder.frames(event))

        try:
            if events:
                events.add(encoder.queued(run_id))
            result = await run(note, run_id)
            if events:
                events.add(encoder.end(result))
            else:
                request.to_response(result)
        except Exception as error:  # noqa: BLE001 - nobody else learns of it
            record.error = type(error).__name__
            described = self._describe(error)
            if events:
                events.add(encoder.failed(described))
            else:
                request.failed(run_id, described)
        finally:
            record.replied_at = time.monotonic()
            self._observe(record)

    async def _with_end(
        self, frames: AsyncGenerator[bytes, None], response_id: str, key_id: str | None, first: int
    ) -> AsyncGenerator[bytes, None]:
        """The frames, and what became of the response if no event of its run says it; or an event of what failed here."""
        try:
            async with aclosing(frames):
                async for data in frames:
                    yield data
                    if any(end in data for end in ENDS):
                        return
            last = await self._store.last_events(response_id)
            if last and not last.frames[-1].startswith(ENDS) and last.last + 1 >= first:
                found = await self.find(response_id, key_id)
                kind, response = f"response.{found.status}", orjson.loads(found.shown)
                yield frame({"type": kind, "sequence_number": last.last + 1, "response": response}, kind)
        except CappellaError as error:
            yield frame({**self._describe(error), "type": "error"}, "error")

    def _ended(self, response_id: str, body: HeldBody, task: asyncio.Task[None]) -> None:
        # Here, since a task that is cancelled before it begins does nothing at all.
        body.release()
        background = self._running.pop(response_id)
        if task.cancelled():
            # Has no effect where the client cancelled it.
            self._store.end(response_id, "failed", STOPPED)
        if background.events:
            background.events.close()

    async def _end(self, response_id: str) -> None:
        background = self._running.get(response_id)
        if background and background.task:
            background.task.cancel()
            await asyncio.wait({background.task})


def _known(found: T | None, response_id: str) -> T:
    if found is None:
        raise UnknownRun(f"No response {response_id[:80]!r} found.", "response_id", "response_not_found")
    return found


def _stored(request: ResponsesRequest, response: Response, key_id: str | None) -> StoredResponse:
    return StoredResponse(response["id"], key_id, time.time(), response["status"], request.items, dict(response))
