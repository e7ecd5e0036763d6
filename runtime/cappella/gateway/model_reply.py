"""The reply of a model that is called by its own name: the engine's, forwarded as it comes; a stream says early that it waits."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, Protocol

from starlette.responses import Response

from cappella.background import background
from cappella.engines import refusals, waiting
from cappella.engines.waiting import WaitReason
from cappella.ensemble import stream
from cappella.errors import CappellaError, EngineNotReady
from cappella.gateway import proxy, renaming, usage_report
from cappella.gateway.admission import in_time
from cappella.gateway.drain import InFlight
from cappella.gateway.formats import sse
from cappella.gateway.limits import answer_count
from cappella.gateway.only_thought import OnlyThought
from cappella.gateway.request import Incoming, Stream, resumed, unless_gone
from cappella.gateway.state import GatewayState
from cappella.gateway.tasks import sequences
from cappella.gateway.tool_stops import ToolStops
from cappella.gateway.usage_report import tokens_of_an_answer
from cappella.telemetry import records
from cappella.types import Capabilities

CHAT = "/v1/chat/completions"
MESSAGES = "/v1/messages"
_BAD_REQUEST = 400


class ModelForm(Protocol):
    """The form of a model's reply, where it is not that of the request's own API. Its streams have this `media_type`."""

    @property
    def media_type(self) -> str: ...

    @property
    def keep_alive(self) -> bytes:
        """What a stream sends while it waits."""
        ...

    def of_model(self, data: AsyncGenerator[bytes, None], head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        """A model's reply in this form. `head`, known with the first piece, has its status and media type."""
        ...


class OwnForm:
    """The form of the engine's own reply."""

    media_type = sse.EventEncoder.media_type
    keep_alive = sse.KEEP_ALIVE

    def of_model(self, data: AsyncGenerator[bytes, None], head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        return data


async def answer_from_model(
    state: GatewayState, model: str, incoming: Incoming, headers: Mapping[str, str], form: ModelForm | None = None
) -> Response:
    """The engine's reply, forwarded unchanged but for the name of an alias, with our own headers.

    A stream that waits for its engine for longer than a moment begins all the same; what fails after that is an event.
    """
    form, head = form or OwnForm(), dict[str, Any]()
    answered = asyncio.get_running_loop().create_future()
    source = _relay(state, model, incoming, head, answered)
    reply = _Reply(form.of_model(source, head), source, head)
    try:
        async with state.in_flight.track_task():
            await unless_gone(incoming.request, reply.wait(answered, incoming.wire.get("stream") is True))
        data = _data(state, model, reply, form)
    except BaseException:
        await reply.aclose()
        raise
    known = {"status_code": 200, "media_type": form.media_type} if reply.is_silent else head
    if known["media_type"] == form.media_type:
        data = _report_broken_stream(state, incoming.request.url.path, data)
    options: dict[str, Any] = {**known, "headers": {**headers, **head.get("headers", {})}}
    return Stream(data, reply, state.config.server.client_timeout_s, incoming.memory, **options)


def _data(state: GatewayState, model: str, reply: "_Reply", form: ModelForm) -> AsyncGenerator[bytes, None]:
    """All pieces of the reply, before them what shows that it waits. Raises what has failed by now, or certainly will."""
    if not reply.is_silent:
        return resumed(reply.first.result(), reply.data)
    if not state.engines[model].status.accepts_requests:
        raise EngineNotReady(f"{model} is {state.engines[model].status.state}")
    return reply.audible(state.in_flight, form.keep_alive)


class _Reply:
    """A reply whose first piece is awaited by a task of its own, which ends with it.

    `_sleeps` is done while that task waits until the engine is awake.
    """

    def __init__(
        self, data: AsyncGenerator[bytes, None], source: AsyncGenerator[bytes, None], head: Mapping[str, Any]
    ) -> None:
        self.data = data
        self._sleeps = asyncio.get_running_loop().create_future()
        self.first = asyncio.create_task(self._first_piece())
        self._source = source
        self._head = head

    @property
    def is_silent(self) -> bool:
        return not self.first.done()

    async def wait(self, answered: "asyncio.Future[None]", streams: bool) -> None:
        """Until the first piece is there or has failed; for a stream only for a moment, unless the engine has refused it."""
        await asyncio.wait({self.first}, timeout=stream.EARLY_FAILURE_S if streams else None)
        if self.is_silent and records.current().admitted_at is not None and not answered.done():
            # It waits for nobody else: the status is about to come, unless the engine has to wake for it.
            either: set[asyncio.Future[Any]] = {self.first, answered, self._sleeps}
            await asyncio.wait(either, timeout=sse.KEEP_ALIVE_S, return_when=asyncio.FIRST_COMPLETED)
        if self._is_refused:
            await asyncio.wait({self.first})

    async def audible(self, in_flight: InFlight, keep_alive: bytes) -> AsyncGenerator[bytes, None]:
        """All pieces, and `keep_alive` while there are none. Raises EngineError if the engine refuses the request."""
        with in_flight.track_future(self.first):
            while self.is_silent:
                yield keep_alive
                await asyncio.wait({self.first}, timeout=sse.KEEP_ALIVE_S)
        pieces = resumed(self.first.result(), self.data)
        if self._is_refused:
            raise refusals.from_reply(self._head["status_code"], b"".join([piece async for piece in pieces]))
        async for piece in pieces:
            yield piece

    async def aclose(self) -> None:
        async with aclosing(self._source), aclosing(self.data), background(self.first):
            pass

    @property
    def _is_refused(self) -> bool:
        return int(self._head.get("status_code", 200)) >= _BAD_REQUEST

    async def _first_piece(self) -> bytes:
        with waiting.listening(self._note_wait):
            return await anext(self.data, b"")

    def _note_wait(self, _: str, reason: WaitReason | None) -> None:
        if reason is None:
            self._sleeps = asyncio.get_running_loop().create_future()
        elif not self._sleeps.done():
            self._sleeps.set_result(None)


async def _relay(
    state: GatewayState, model: str, incoming: Incoming, head: dict[str, Any], answered: "asyncio.Future[None]"
) -> AsyncGenerator[bytes, None]:
    """The pieces of the engine's reply; `head` has its status and media type once it has `answered`."""
    answers = answer_count(incoming.wire)
    about = state.config.models_by_name[model]
    tokens = tokens_of_an_answer(incoming.wire, about.context_tokens) if about.capabilities.writes else 0
    body, shown = _asked(incoming, model, about.capabilities)
    needed = {state.config.host_of[model]: sequences(incoming.path, incoming.wire, about.max_num_seqs) or answers}
    slot = state.admission.slot(model, needed, direct=True, key=incoming.key_id)
    slot = in_time(slot, state.config.server.max_queue_s - incoming.waited_s, "server.max_queue_s")
    async with records.current().waiting(model, slot):
        incoming.memory.release()
        async with (
            state.recorder.call(incoming.key, model, incoming.wire, answers, tokens) as forwarded,
            state.engines[model].forward(incoming.path, body, forwarded.sent) as reply,
        ):
            head.update(status_code=reply.status_code, media_type=reply.content_type)
            answered.set_result(None)
            forwarded.begin(reply.status_code)
            with state.in_flight.track(reply.abort, is_admitted=True):
                async for data in reply.body:
                    forwarded.add(data)
                    if visible := shown.feed(data):
                        yield visible
                rest = shown.rest()
                head["headers"] = shown.headers
                if rest:
                    yield rest


def _asked(incoming: Incoming, model: str, about: Capabilities) -> tuple[bytes, usage_report.Filter]:
    """The body that the engine gets, and what makes the client's reply of the engine's."""
    own_name = renaming.with_own_name(incoming.wire, incoming.body, model)
    body, shown = usage_report.requested(incoming.path, *own_name)
    if incoming.path == MESSAGES and incoming.wire.get("tools"):
        shown = ToolStops(shown)
    if (name := incoming.wire["model"]) != model:
        shown = renaming.Renamed(name, shown) if about.writes else renaming.RenamedHead(name, model)
    thinks = about.reasoning and incoming.path == CHAT
    return body, OnlyThought(shown, answer_count(incoming.wire)) if thinks else shown


async def _report_broken_stream(
    state: GatewayState, path: str, data: AsyncGenerator[bytes, None]
) -> AsyncGenerator[bytes, None]:
    """Ends a stream that fails with an error event, since its status of 200 is sent."""
    try:
        async with aclosing(data) as pieces:
            async for piece in pieces:
                yield piece
    except CappellaError as error:
        yield proxy.broken_stream_events(path, state.describe(error))
