"""The four inference endpoints, `/v1/models` and `/api/reload`: request in, pipeline or engine, reply out."""

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol

import orjson
from fastapi import APIRouter, Request, Response

from cappella.auth.keys import Key
from cappella.config import Ensemble
from cappella.config.options import Overrides, Settings
from cappella.ensemble.events import Emit
from cappella.ensemble.run import Run
from cappella.ensemble.settings import resolve
from cappella.errors import CappellaError, RequestError, UnknownModel
from cappella.gateway import images, model_list, proxy, usage_report
from cappella.gateway.admission import costs, in_time
from cappella.gateway.body_encoding import decoded, decoder_of
from cappella.gateway.formats import fields, policy, sse
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.policy_ensembles import ENSEMBLES
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.gateway.formats.sse import EventEncoder
from cappella.gateway.limits import answer_count
from cappella.gateway.model_list import PREFIX
from cappella.gateway.reply_types import Models, Reloaded
from cappella.gateway.request import Incoming, Stream, caller, read, require_json, unless_gone
from cappella.gateway.state import GatewayState
from cappella.gateway.usage_report import tokens_of_an_answer
from cappella.gateway.validation import checked_json, parse
from cappella.telemetry import records
from cappella.threads import MAX_INLINE_CHARS, off_loop_if_large
from cappella.types import Json, Prompt, Sampling
from cappella.vocabulary import STRATEGIES


class EnsembleRequest(Protocol):
    """A request to an ensemble, in the form of any API."""

    @property
    def stream(self) -> bool: ...
    @property
    def wants_panel_deltas(self) -> bool: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def sampling(self) -> Sampling: ...
    @property
    def overrides(self) -> Overrides: ...
    @property
    def ignored(self) -> Sequence[str]: ...
    def tell_ignored(self, names: Sequence[str]) -> None: ...

    def to_response(self, run: Run) -> Mapping[str, Any]:
        """The reply without streaming."""
        ...

    def event_encoder(self) -> EventEncoder:
        """The encoder of a streamed reply."""
        ...


# The form of a request to an ensemble, by API; /v1/completions has no conversation for a panel.
APIS: Mapping[str, type[fields.FusionRequest] | None] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": None,
    "/v1/responses": ResponsesRequest,
    "/v1/messages": MessagesRequest,
}


def create_router(current: Callable[[], GatewayState], reload: Callable[[], Awaitable[Reloaded]]) -> APIRouter:
    """The endpoints. Each request uses the state that is current when its body has been read."""
    router = APIRouter()

    for path in APIS:
        router.add_api_route(path, _inference_endpoint(current, path), methods=["POST"])

    @router.get("/v1/models", response_model=None)
    async def models(request: Request) -> Models:
        state = current()
        key = await state.authenticate(request, "run")
        return {
            "object": "list",
            "data": [
                each
                for each in model_list.models(state.config, state.created)
                if key is None or key.may_call(each["id"])
            ],
            "strategies": {name: traits.summary for name, traits in STRATEGIES.items()},
        }

    @router.post("/api/reload", response_model=None)
    async def reload_config(request: Request) -> Reloaded:
        await current().authenticate(request, "admin")
        return await reload()

    return router


def _inference_endpoint(current: Callable[[], GatewayState], path: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one API: it answers from a model called by its own name, or from an ensemble."""

    async def answer(request: Request) -> Response:
        state = current()
        key = await state.authenticate(request, "run")
        require_json(request)
        server = state.config.server
        with state.bodies.holding(caller(request, key)) as memory:
            decode = decoder_of(request.headers.get("content-encoding", ""))
            body = await read(request, server.max_body_bytes, server.client_timeout_s, memory.add)
            if decode:
                body = await off_loop_if_large(MAX_INLINE_CHARS + 1, decoded, decode, body, server.max_body_bytes)
                memory.add(len(body))
            wire, body = await off_loop_if_large(len(body), checked_json, body, server.limits)
            body = await images.with_files(body, wire, server.image_folder, server.max_body_bytes)
            # A reload may have come meanwhile.
            return await _answer(current(), Incoming(request, path, key, body, wire, memory))

    return answer


async def _answer(state: GatewayState, incoming: Incoming) -> Response:
    """The reply of the model or ensemble that the request names. Raises RequestError, Overloaded, Forbidden and others."""
    model, key, path = incoming.wire.get("model"), incoming.key, incoming.path
    if not isinstance(model, str):
        raise RequestError("model must be a string.", "model")
    if model in state.engines:
        if not state.engines[model].supports(path):
            raise RequestError(f"The server of {model} does not support {path}: use /v1/chat/completions.", "model")
        state.admission.require_queue_space(model, incoming.key_id)
        refuses = state.config.server.unknown_fields == "refuse"
        sent = await off_loop_if_large(
            len(incoming.body), proxy.forwardable, path, incoming.wire, incoming.body, refuses
        )
        await state.gatekeeper.admit(key, [model])
        incoming = replace(incoming, wire=sent.wire, body=sent.body)
        return await _answer_from_model(state, model, incoming, state.ignored.told(path, sent.ignored))
    name = model.removeprefix(PREFIX)
    if not model.startswith(PREFIX) or name not in state.config.ensembles:
        raise UnknownModel(model, _callable_models(state, key))
    state.admission.require_queue_space(model, incoming.key_id)
    schema = APIS[path]
    if schema is None:
        raise RequestError(f"{path} is for single models: call {model} through /v1/chat/completions.", "model")
    parsed: Any = await off_loop_if_large(len(incoming.body), _read, state, path, schema, incoming.wire)
    extra = _models_beyond(parsed.overrides, state.config.ensembles[name])
    await state.gatekeeper.admit(key, [model, *extra])
    return await _answer_from_ensemble(state, incoming, parsed, name)


def _read(state: GatewayState, path: str, schema: type[fields.FusionRequest], wire: Json) -> fields.FusionRequest:
    """The request, which knows what of it was ignored. Raises RequestError."""
    reading = policy.read(ENSEMBLES[path], wire, state.config.server.unknown_fields == "refuse")
    parsed = parse(schema, reading)
    parsed.tell_ignored(reading.ignored)
    return parsed


def _models_beyond(overrides: Overrides, ensemble: Ensemble) -> list[str]:
    """Models that the request names beyond those of the ensemble: the key must allow each of them."""
    named = [*(overrides.panel or ()), *([overrides.judge] if overrides.judge else [])]
    own = {model for _, model in ensemble.models}
    return [model for model in named if model not in own]


async def _answer_from_ensemble(
    state: GatewayState, incoming: Incoming, parsed: EnsembleRequest, name: str
) -> Response:
    prompt, settings = await off_loop_if_large(len(incoming.body), _resolved, state, parsed, name)
    headers = state.ignored.told(incoming.path, parsed.ignored)
    needed = costs(settings, state.config.host_of)

    async def run(emit: Emit) -> Run:
        slot = state.admission.slot(PREFIX + name, needed, key=incoming.key_id)
        slot = in_time(slot, settings.deadline_s - incoming.waited_s)
        async with state.in_flight.track_run() as begin, records.current().waiting(PREFIX + name, slot):
            incoming.memory.release()
            # The time in the queue is part of the client's wait, too.
            left = settings.model_copy(update={"deadline_s": settings.deadline_s - incoming.waited_s})
            begin(left.deadline_s)
            return await state.recorder.run(state.pipeline, incoming.key, prompt, left, emit)

    if not parsed.stream:
        result = await unless_gone(incoming.request, run(lambda event: None))
        return Response(orjson.dumps(parsed.to_response(result)), media_type="application/json", headers=headers)
    frames = sse.stream(run, parsed.event_encoder(), state.describe)
    # Awaited before the reply begins, so that an early failure still gets its own status code.
    first = await unless_gone(incoming.request, anext(frames))
    options = {"media_type": "text/event-stream", "headers": {**_NO_BUFFERING, **headers}}
    return Stream(_resume(first, frames), frames, state.config.server.client_timeout_s, **options)


def _resolved(state: GatewayState, parsed: EnsembleRequest, name: str) -> tuple[Prompt, Settings]:
    config = state.config
    prompt = replace(parsed.prompt, watched=parsed.stream)
    ensemble, models, limits = config.ensembles[name], config.models_by_name, config.server.limits
    settings = resolve(name, ensemble, models, parsed.overrides, prompt, parsed.sampling, limits)
    used = [*(seat.model for seat in settings.panel), settings.judge]
    if prompt.reasoning_effort not in (None, "none") and not any(models[each].capabilities.reasoning for each in used):
        parsed.tell_ignored(["reasoning_effort"])
    return prompt, settings.model_copy(update={"panel_watched": parsed.wants_panel_deltas})


_NO_BUFFERING = {"X-Accel-Buffering": "no"}


async def _answer_from_model(
    state: GatewayState, model: str, incoming: Incoming, headers: Mapping[str, str]
) -> Response:
    """The engine's reply, forwarded unchanged, with our own headers."""
    head: dict[str, Any] = {}
    answers = answer_count(incoming.wire)
    needed = {state.config.host_of[model]: answers}
    tokens = tokens_of_an_answer(incoming.wire, state.config.models_by_name[model].max_model_len)
    body, shown = usage_report.requested(incoming.path, incoming.wire, incoming.body)

    async def relay() -> AsyncGenerator[bytes, None]:
        slot = state.admission.slot(model, needed, direct=True, key=incoming.key_id)
        async with records.current().waiting(model, slot):
            incoming.memory.release()
            async with (
                state.recorder.call(incoming.key, model, incoming.wire, answers, tokens) as forwarded,
                state.engines[model].forward(incoming.path, body) as reply,
            ):
                head.update(status_code=reply.status_code, media_type=reply.content_type)
                forwarded.begin(reply.status_code)
                with state.in_flight.track(reply.abort, is_admitted=True):
                    async for data in reply.body:
                        forwarded.add(data)
                        if visible := shown.feed(data):
                            yield visible
                    if rest := shown.rest():
                        yield rest

    data = source = relay()
    async with state.in_flight.track_task():
        first = await unless_gone(incoming.request, anext(data, b""))
    if head["media_type"] == "text/event-stream":
        data = _report_broken_stream(state, incoming.path, data)
    return Stream(_resume(first, data), source, state.config.server.client_timeout_s, headers=headers, **head)


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


async def _resume(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for data in rest:
            yield data
    finally:
        await rest.aclose()


def _callable_models(state: GatewayState, key: Key | None) -> list[str]:
    """The models and ensembles that the key may call; an error must not reveal others."""
    names = [*(PREFIX + name for name in state.config.ensembles), *state.config.models_by_name]
    return [name for name in names if key is None or key.may_call(name)]
