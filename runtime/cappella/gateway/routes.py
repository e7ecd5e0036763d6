"""The inference endpoints and `/api/reload`: request in, pipeline or engine, reply out."""

from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import orjson
from starlette.requests import Request
from starlette.responses import Response

from cappella.auth.keys import Key
from cappella.config import Config, Ensemble
from cappella.config.options import Settings
from cappella.config.overrides import Overrides
from cappella.ensemble.events import Emit
from cappella.ensemble.living_judge import with_living_judge
from cappella.ensemble.pipeline import new_run_id
from cappella.ensemble.progress import without_progress
from cappella.ensemble.run import Run
from cappella.ensemble.settings import resolve
from cappella.errors import RequestError, UnknownModel
from cappella.gateway import proxy, server_tool
from cappella.gateway.admission import in_time
from cappella.gateway.costs import costs
from cappella.gateway.formats import policy, sse
from cappella.gateway.formats.chat import ChatRequest
from cappella.gateway.formats.fusion_request import FusionRequest
from cappella.gateway.formats.items import continue_conversation
from cappella.gateway.formats.messages import MessagesRequest
from cappella.gateway.formats.policy_ensembles import ENSEMBLES
from cappella.gateway.formats.responses import ResponsesRequest
from cappella.gateway.formats.sse import EventEncoder
from cappella.gateway.kept_responses import PATH as RESPONSES
from cappella.gateway.kept_responses import KeptResponses, Recalled, recalled
from cappella.gateway.limits import require_within_limits
from cappella.gateway.model_list import PREFIX, callable_names, named_model
from cappella.gateway.model_reply import MESSAGES, ModelForm, answer_from_model
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.reply_types import Reloaded
from cappella.gateway.request import NO_BUFFERING, Incoming, Stream, event_stream, resumed, unless_gone
from cappella.gateway.state import GatewayState
from cappella.gateway.tasks import require_able
from cappella.gateway.validation import parse
from cappella.telemetry import records
from cappella.threads import off_loop_if_large
from cappella.types import Prompt, Sampling


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
    @property
    def effort_field(self) -> str: ...
    def tell_ignored(self, names: Sequence[str]) -> None: ...

    def to_response(self, run: Run) -> Mapping[str, Any]:
        """The reply without streaming."""
        ...

    def event_encoder(self) -> EventEncoder:
        """The encoder of a streamed reply."""
        ...


# The form of a request to an ensemble, by API; /v1/completions has no conversation for a panel.
APIS: Mapping[str, type[FusionRequest] | None] = {
    "/v1/chat/completions": ChatRequest,
    "/v1/completions": None,
    RESPONSES: ResponsesRequest,
    MESSAGES: MessagesRequest,
}


def create_router(current: Callable[[], GatewayState], reload: Callable[[], Awaitable[Reloaded]]) -> PlainRoutes:
    """The endpoints. Each request uses the state that is current when its body has been read."""
    router = PlainRoutes()

    for path in APIS:
        router.add(path, _inference_endpoint(current, path), methods=["POST"])

    @router.post("/api/reload")
    async def reload_config(request: Request) -> Reloaded:
        await current().authenticate(request, "admin")
        return await reload()

    return router


def _inference_endpoint(current: Callable[[], GatewayState], path: str) -> Callable[[Request], Awaitable[Response]]:
    """The endpoint of one API: it answers from a model called by its own name, or from an ensemble."""

    async def answer(request: Request) -> Response:
        async with received(current, request) as incoming:
            # A reload may have come meanwhile.
            return await answer_request(current(), replace(incoming, path=path))

    return answer


class Form(ModelForm, Protocol):
    """The form of a reply, where it is not that of the request's own API."""

    def of_ensemble(self, parsed: Any) -> EnsembleRequest:
        """The parsed request, with replies in this form."""
        ...


async def answer_request(state: GatewayState, incoming: Incoming, form: Form | None = None) -> Response:
    """The reply of the model or ensemble that the request names. Raises RequestError, Overloaded, Forbidden and others."""
    model, key, path = named_model(state.config, incoming.wire), incoming.key, incoming.path
    require_able(state, model, path, key)
    if model in state.engines:
        if server_tool.may_ask_panel(path, incoming.wire):
            return await _ask_ensemble(state, incoming, server_tool.panel_of(state.config), form, outer=model)
        state.admission.require_queue_space(model, incoming.key_id)
        refuses = state.config.server.refuses_unknown_fields
        sent = await off_loop_if_large(
            incoming.work_chars, proxy.forwardable, path, incoming.wire, incoming.body, refuses
        )
        await state.gatekeeper.admit(key, [model])
        incoming = replace(incoming, wire=sent.wire, body=sent.body)
        return await answer_from_model(state, model, incoming, state.ignored.told(path, sent.ignored), form)
    name = model.removeprefix(PREFIX)
    if not model.startswith(PREFIX) or name not in state.config.ensembles:
        raise UnknownModel(model, callable_names(state.config, key))
    return await _ask_ensemble(state, incoming, name, form)


async def _ask_ensemble(
    state: GatewayState, incoming: Incoming, name: str, form: Form | None, outer: str | None = None
) -> Response:
    """The reply of an ensemble, which is the tool of the model `outer` if that was called."""
    path, called = incoming.path, PREFIX + name
    state.admission.require_queue_space(called, incoming.key_id)
    schema = APIS[path]
    if schema is None:
        raise RequestError(f"{path} is for single models: call {called} through /v1/chat/completions.", "model")
    named = await recalled(state.responses, incoming, state.config.server.max_body_bytes)
    parsed: Any = await off_loop_if_large(incoming.work_chars, _read, state, path, schema, named)
    if outer:
        parsed.come_through(outer)
    overrides = _by_own_names(parsed.overrides, state.config)
    extra = _models_beyond(overrides, state.config.ensembles[name])
    await state.gatekeeper.admit(incoming.key, [*([outer] if outer else []), called, *extra])
    if form:
        parsed = await off_loop_if_large(incoming.work_chars, form.of_ensemble, parsed)
    return await _answer_from_ensemble(state, incoming, parsed, overrides, name)


def _by_own_names(overrides: Overrides, config: Config) -> Overrides:
    """The overrides with the models' own names in the place of aliases."""
    panel, judge, options = overrides.panel, overrides.judge, overrides.options
    if reward := options.select.reward:
        select = options.select.model_copy(update={"reward": config.meant_by(reward)})
        options = options.model_copy(update={"select": select})
    if embedder := options.agreement.model:
        agreement = options.agreement.model_copy(update={"model": config.meant_by(embedder)})
        options = options.model_copy(update={"agreement": agreement})
    return replace(
        overrides,
        options=options,
        panel=None if panel is None else tuple(map(config.meant_by, panel)),
        judge=None if judge is None else config.meant_by(judge),
        model_sampling=tuple((config.meant_by(name), sampling) for name, sampling in overrides.model_sampling),
        answers=tuple(replace(each, name=config.meant_by(each.name)) for each in overrides.answers),
    )


def _read(state: GatewayState, path: str, schema: type[FusionRequest], named: Recalled) -> FusionRequest:
    """The request, which knows what of it was ignored. Raises RequestError."""
    reading = policy.read(ENSEMBLES[path], named.wire, state.config.server.refuses_unknown_fields)
    if named.earlier:
        continue_conversation(reading, named.earlier)
    if named.size_bytes:
        require_within_limits(reading.body, state.config.server.limits)
    parsed = parse(schema, reading)
    parsed.tell_ignored([*named.ignored, *reading.ignored])
    return parsed


def _models_beyond(overrides: Overrides, ensemble: Ensemble) -> list[str]:
    """Models that the request names beyond those of the ensemble: the key must allow each of them."""
    options = overrides.options
    named = [*(overrides.panel or ()), overrides.judge, options.select.reward, options.agreement.model]
    own = {*(model for _, model in ensemble.models), *ensemble.helpers}
    return [model for model in named if model and model not in own]


async def _answer_from_ensemble(
    state: GatewayState, incoming: Incoming, parsed: EnsembleRequest, overrides: Overrides, name: str
) -> Response:
    prompt, settings = await off_loop_if_large(incoming.work_chars, _resolved, state, parsed, overrides, name)
    settings = settings.model_copy(update={"withheld_tools": withheld_documents(state.config, incoming.key)})
    headers = state.ignored.told(incoming.path, parsed.ignored)
    # The judge that is up now, whose engine it is that the run needs.
    judged = with_living_judge(state.engines, settings)[0]
    needed = costs(judged, state.config.host_of, state.engines[judged.judge].capabilities.writes)

    async def run(emit: Emit, run_id: str) -> Run:
        slot = state.admission.slot(PREFIX + name, needed, key=incoming.key_id)
        slot = in_time(slot, settings.deadline_s - incoming.waited_s, "the run's deadline_s")
        async with state.in_flight.track_run() as begin, records.current().waiting(PREFIX + name, slot):
            incoming.memory.release()
            # The time in the queue is part of the client's wait, too.
            left = settings.model_copy(update={"deadline_s": settings.deadline_s - incoming.waited_s})
            begin(left.deadline_s)
            return await state.recorder.run(state.pipeline, incoming.key, prompt, left, emit, run_id)

    if isinstance(parsed, ResponsesRequest) and state.responses:
        if parsed.background:
            return await _in_background(state, state.responses, incoming, parsed, run, headers)
        state.responses.keep(parsed, incoming.key_id, incoming.memory.size_bytes)
    run_id = new_run_id()
    if not parsed.stream:
        result = await unless_gone(incoming.request, run(lambda event: None, run_id))
        return Response(orjson.dumps(parsed.to_response(result)), media_type="application/json", headers=headers)

    def require_possible() -> None:
        state.recorder.require_available()
        state.pipeline.require_ready(settings)

    encoder = parsed.event_encoder()
    frames = sse.stream(partial(run, run_id=run_id), run_id, encoder, state.describe, require_possible)
    # Awaited before the reply begins, so that an early failure still gets its own status code.
    first = await unless_gone(incoming.request, anext(frames))
    options = {"media_type": encoder.media_type, "headers": {**NO_BUFFERING, **headers}}
    return Stream(resumed(first, frames), frames, state.config.server.client_timeout_s, incoming.memory, **options)


async def _in_background(
    state: GatewayState,
    responses: KeptResponses,
    incoming: Incoming,
    parsed: ResponsesRequest,
    run: Callable[[Emit, str], Coroutine[Any, Any, Run]],
    headers: Mapping[str, str],
) -> Response:
    """The queued response, or its stream, which goes on without its client, and may be read from any event on."""
    queued = await responses.start(parsed, incoming.key_id, incoming.memory, run)
    if not parsed.stream:
        return Response(orjson.dumps(queued), media_type="application/json", headers=headers)
    frames = await responses.events(queued["id"], incoming.key_id)
    return event_stream(frames, state.config.server.client_timeout_s, headers)


def withheld_documents(config: Config, key: Key | None) -> frozenset[str]:
    """The documents that runs for this key may not search."""
    return frozenset(name for name in config.documents if key is not None and not key.may_search(name))


def _resolved(state: GatewayState, parsed: EnsembleRequest, overrides: Overrides, name: str) -> tuple[Prompt, Settings]:
    config = state.config
    prompt = replace(parsed.prompt, messages=without_progress(parsed.prompt.messages), watched=parsed.stream)
    ensemble, models, limits = config.ensembles[name], config.models_by_name, config.server.limits
    settings = resolve(name, ensemble, models, overrides, prompt, parsed.sampling, limits)
    used = [*(seat.model for seat in settings.panel), settings.judge]
    if prompt.reasoning_effort not in (None, "none") and not any(models[each].capabilities.reasoning for each in used):
        parsed.tell_ignored([parsed.effort_field])
    # A client that gets the events themselves is told the same twice only if it asks for that.
    told_by_events = parsed.wants_panel_deltas and "progress" not in overrides.options.given()
    shown = {"panel_watched": parsed.wants_panel_deltas, **({"progress": "off"} if told_by_events else {})}
    return prompt, settings.model_copy(update=shown)
