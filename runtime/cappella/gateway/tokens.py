"""Token counts: `/v1/messages/count_tokens` for ensembles and models, vLLM's `/tokenize` and `/detokenize` for models.

They generate nothing, and so wait in no queue; an engine counts few of them at a time.
"""

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from functools import partial

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.engines import refusals, waiting
from cappella.engines.waiting import WaitReason
from cappella.errors import QueueTimeout, RequestError, UnknownModel
from cappella.gateway import proxy, renaming
from cappella.gateway.formats import policy
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.policy_ensembles import ENSEMBLES
from cappella.gateway.model_list import PREFIX, callable_names, named_model
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.reply_types import InputTokens
from cappella.gateway.request import Incoming, unless_gone
from cappella.gateway.state import GatewayState
from cappella.gateway.validation import parse
from cappella.threads import off_loop_if_large
from cappella.types import Json

COUNT_PATH = "/v1/messages/count_tokens"
AT_ONCE = 4
"""Counts of one engine at a time: its tokenizer works on one core, which its streams need as well."""
TIMEOUT_S = 30.0

Answer = Callable[[GatewayState, Incoming, str], Awaitable[bytes]]


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    router = PlainRoutes()
    turns = Turns()

    def endpoint(answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def reply(request: Request) -> Response:
            return await _reply(current, request, turns, answer)

        return reply

    router.add(COUNT_PATH, endpoint(_count), methods=["POST"])
    for path in ("/tokenize", "/detokenize"):
        router.add(path, endpoint(_forward), methods=["POST"])
    return router


class Turns:
    """Lets few counts of each engine proceed at a time."""

    def __init__(self) -> None:
        self._by_engine: Mapping[str, _Turns] = defaultdict(_Turns)

    async def take(self, engine: str, work: Callable[[], Awaitable[bytes]]) -> bytes:
        """What `work` returns. Raises QueueTimeout after `TIMEOUT_S`, without the time in which the engine wakes."""
        try:
            return await self._by_engine[engine].take(work)
        except TimeoutError as error:
            raise QueueTimeout(f"{engine} counted no tokens within {TIMEOUT_S:g} s.") from error


class _Turns:
    """Those of one engine. While a count waits for it to wake, the time of none passes."""

    def __init__(self) -> None:
        self._semaphore = asyncio.Semaphore(AT_ONCE)
        self._timeouts: set[asyncio.Timeout] = set()
        self._asleep = 0

    async def take(self, work: Callable[[], Awaitable[bytes]]) -> bytes:
        async with asyncio.timeout_at(self._ends_at()) as timeout:
            self._timeouts.add(timeout)
            try:
                with waiting.listening(self._note_wait):
                    async with self._semaphore:
                        return await work()
            finally:
                self._timeouts.remove(timeout)

    def _note_wait(self, _: str, reason: WaitReason | None) -> None:
        self._asleep += 1 if reason else -1
        for timeout in self._timeouts:
            # One that is over does not begin again.
            if not timeout.expired():
                timeout.reschedule(self._ends_at())

    def _ends_at(self) -> float | None:
        return None if self._asleep else asyncio.get_running_loop().time() + TIMEOUT_S


async def _reply(current: Callable[[], GatewayState], request: Request, turns: Turns, answer: Answer) -> Response:
    async with received(current, request) as incoming:
        state, key = current(), incoming.key
        name = named_model(state.config, incoming.wire)
        if name not in callable_names(state.config, None):
            raise UnknownModel(name, callable_names(state.config, key))
        await state.gatekeeper.admit(key, [name])
        model = _counting_model(state, name)
        async with state.recorder.counting(key, model, incoming.wire):
            counted = await unless_gone(request, turns.take(model, partial(answer, state, incoming, model)))
    return Response(counted, media_type="application/json")


def _counting_model(state: GatewayState, name: str) -> str:
    """The model itself, or the judge of an ensemble: it reads the longest prompts."""
    return state.config.ensembles[name.removeprefix(PREFIX)].judge.model if name.startswith(PREFIX) else name


async def _count(state: GatewayState, incoming: Incoming, model: str) -> bytes:
    # An answer has no length here, and a message needs one.
    wire = {"max_tokens": 1, **incoming.wire}
    parsed = await off_loop_if_large(incoming.work_chars, _message, wire, state.config.server.refuses_unknown_fields)
    count = await state.engines[model].count_tokens(parsed.prompt)
    reply: InputTokens = {"input_tokens": count.tokens}
    return orjson.dumps(reply)


def _message(wire: Json, refuse_unknown: bool) -> MessagesRequest:
    return parse(MessagesRequest, policy.read(ENSEMBLES["/v1/messages"], wire, refuse_unknown))


async def _forward(state: GatewayState, incoming: Incoming, model: str) -> bytes:
    """The engine's own reply. Raises RequestError for ensembles, which have no tokenizer of their own."""
    path, wire = incoming.path, incoming.wire
    if named_model(state.config, wire) != model:
        raise RequestError(f"{path} is for single models: call it with {model}, the judge's name.", "model")
    if not state.engines[model].supports(path):
        raise RequestError(f"The server of {model} does not support {path}.", "model")
    sent = await off_loop_if_large(
        incoming.work_chars, proxy.forwardable, path, wire, incoming.body, state.config.server.refuses_unknown_fields
    )
    _, body = renaming.with_own_name(sent.wire, sent.body, model)
    async with state.engines[model].forward(path, body) as reply:
        counted = b"".join([data async for data in reply.body])
    if reply.status_code != 200:
        raise refusals.from_reply(reply.status_code, counted)
    return counted
