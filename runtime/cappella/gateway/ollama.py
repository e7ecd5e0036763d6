"""Ollama's API: `/api/chat`, `/api/generate`, `/api/tags`, `/api/show`, `/api/ps` and `/api/version`."""

import hashlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from cappella.auth.keys import Key
from cappella.config import Config
from cappella.engines import refusals
from cappella.errors import UnknownModel
from cappella.gateway.formats import ollama, ollama_replies
from cappella.gateway.formats.ollama_replies import NDJSON, OllamaRequest, Replies
from cappella.gateway.limits import require_within_limits
from cappella.gateway.model_list import PREFIX, callable_names, entry, named_model
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.receive import received
from cappella.gateway.request import Incoming
from cappella.gateway.routes import EnsembleRequest, answer_request
from cappella.gateway.state import GatewayState
from cappella.threads import off_loop_if_large
from cappella.types import Json

API_VERSION = "0.12.6"
"""The version of Ollama whose API this is: clients refuse older ones."""
_AS_CHAT = "/v1/chat/completions"
_NEVER = "2318-01-01T00:00:00Z"
_DETAILS: Json = {
    "parent_model": "",
    "format": "safetensors",
    "family": "cappella",
    "families": ["cappella"],
    "parameter_size": "",
    "quantization_level": "",
}


def create_router(current: Callable[[], GatewayState]) -> PlainRoutes:
    router = PlainRoutes("/api")

    @router.get("/version")
    async def version(request: Request) -> Json:
        await current().authenticate(request, "run")
        return {"version": API_VERSION}

    @router.get("/tags")
    async def tags(request: Request) -> Json:
        state = current()
        key = await state.authenticate(request, "run")
        return {"models": [_listed(state, name) for name in callable_names(state.config, key)]}

    @router.get("/ps")
    async def running(request: Request) -> Json:
        state = current()
        names = callable_names(state.config, await state.authenticate(request, "run"))
        return {"models": [_loaded(state, name) for name in names if _answers(state, name)]}

    @router.post("/show")
    async def show(request: Request) -> Json:
        async with received(current, request) as incoming:
            # Older clients call the model's name so.
            wire = {"model": incoming.wire.get("name"), **incoming.wire}
            return _shown(current(), _named(current(), incoming.key, wire))

    for path in (ollama.CHAT, ollama.GENERATE):
        router.add(path, _generating_endpoint(current, path), methods=["POST"])
    return router


def _generating_endpoint(current: Callable[[], GatewayState], path: str) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        async with received(current, request) as incoming:
            state, wire = current(), incoming.wire
            name = _named(state, incoming.key, wire)
            form = _Form(path, name, str(wire["model"]), ollama.streams(wire))
            if ollama.asks_to_load(path, wire):
                await state.gatekeeper.admit(incoming.key, [state.config.meant_by(name)])
                return JSONResponse(form.replies.loaded(wire.get("keep_alive") == 0))
            as_chat = await off_loop_if_large(incoming.work_chars, _as_chat, state.config, path, name, incoming)
            return await answer_request(state, as_chat, form)

    return answer


def _as_chat(config: Config, path: str, name: str, incoming: Incoming) -> Incoming:
    """The request as one to /v1/chat/completions. Raises RequestError."""
    chat = ollama.chat_body(path, incoming.wire, name, _thinks(config, name))
    require_within_limits(chat, config.server.limits)
    return replace(incoming, path=_AS_CHAT, wire=chat, body=orjson.dumps(chat))


class _Form:
    """See `routes.Form`: replies to a request for `name`, in which the model is called `shown`."""

    def __init__(self, path: str, name: str, shown: str, streams: bool) -> None:
        self._path, self._shown, self._streams = path, shown, streams
        self.replies = Replies(path, shown)
        self.media_type = NDJSON

    @property
    def keep_alive(self) -> bytes:
        """An empty piece: see `ollama_replies.Lines`."""
        return ollama_replies.line(self.replies.piece())

    def of_ensemble(self, parsed: Any) -> EnsembleRequest:
        return OllamaRequest(self._path, self._shown, parsed)

    async def of_model(self, data: AsyncGenerator[bytes, None], head: dict[str, Any]) -> AsyncGenerator[bytes, None]:
        async with aclosing(data):
            first = await anext(data, b"")
            rest = _after(first, data)
            if head["status_code"] >= 400:
                raise refusals.from_reply(head["status_code"], b"".join([each async for each in rest]))
            streams = self._streams
            head["media_type"] = NDJSON if streams else "application/json"
            async for each in (ollama_replies.of_stream if streams else ollama_replies.of_whole)(rest, self.replies):
                yield each


async def _after(first: bytes, rest: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    yield first
    async for data in rest:
        yield data


def _named(state: GatewayState, key: Key | None, wire: Mapping[str, Any]) -> str:
    """The name that the request calls, without Ollama's default tag. Raises RequestError and UnknownModel."""
    named_model(state.config, wire)
    name = str(wire["model"]).removesuffix(":latest")
    known = callable_names(state.config, key)
    if name not in known:
        raise UnknownModel(name, known)
    return name


def _thinks(config: Config, name: str) -> bool:
    """Whether the model, or any of the ensemble's, can be told how much to think."""
    target = config.meant_by(name)
    ensemble = config.ensembles.get(target.removeprefix(PREFIX)) if target.startswith(PREFIX) else None
    used = [model for _, model in ensemble.models] if ensemble else [target]
    return any(config.models_by_name[model].capabilities.reasoning for model in used)


def _answers(state: GatewayState, name: str) -> bool:
    """Whether it could answer now."""
    target = state.config.meant_by(name)
    if target.startswith(PREFIX):
        return state.deployment.answering()[target.removeprefix(PREFIX)]
    return state.engines[target].status.state == "ready"


def _listed(state: GatewayState, name: str) -> Json:
    """Our models have no digest of their own and no size that says anything of an ensemble."""
    digest = hashlib.sha256(name.encode()).hexdigest()
    changed = ollama_replies.written(state.created)
    return {"name": name, "model": name, "modified_at": changed, "size": 0, "digest": digest, "details": _DETAILS}


def _loaded(state: GatewayState, name: str) -> Json:
    context = entry(state.config, name, state.created)["context_length"]
    return {**_listed(state, name), "expires_at": _NEVER, "size_vram": 0, "context_length": context}


def _shown(state: GatewayState, name: str) -> Json:
    about = entry(state.config, name, state.created)
    capabilities = {
        "completion": about["task"] == "generate",
        "embedding": about["task"] == "embed",
        "tools": about["tools"],
        "vision": "image" in about["architecture"]["input_modalities"],
        "thinking": _thinks(state.config, name),
    }
    return {
        "modelfile": f"# {name} is configured in Cappella",
        "parameters": "",
        "template": "",
        "details": _DETAILS,
        "model_info": {"general.architecture": "cappella", "cappella.context_length": about["context_length"]},
        "capabilities": [name for name, has in capabilities.items() if has],
        "modified_at": ollama_replies.written(state.created),
    }
