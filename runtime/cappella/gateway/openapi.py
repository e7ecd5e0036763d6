"""`GET /openapi.json`: the schemas of requests and replies, and all statuses with their error codes.

It reveals nothing of the deployment but whether it has keys. There is no page that renders it: the usual ones load scripts
from other hosts.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic.json_schema import models_json_schema
from starlette.requests import Request

import cappella
from cappella.auth.gatekeeper import Gatekeeper
from cappella.config.limits import Limits
from cappella.gateway import errors, ollama_types, reply_types
from cappella.gateway.endpoint import Endpoint
from cappella.gateway.endpoints import DOCUMENT_PATH, ENDPOINTS, INFERENCE, POSTED
from cappella.gateway.errors import Codes
from cappella.gateway.formats.api_errors import OLLAMA
from cappella.gateway.formats.policy import Fields
from cappella.gateway.formats.policy_ensembles import ENSEMBLES
from cappella.gateway.formats.policy_models import MODELS
from cappella.gateway.model_list import PREFIX
from cappella.gateway.plain_routes import PlainRoutes
from cappella.gateway.request import credentials
from cappella.gateway.routes import APIS
from cappella.types import Json

_ABOUT_KEYS = ("invalid_api_key", "scope_missing", "model_not_allowed")
_ALSO_INFERENCE = frozenset(
    "unknown_field invalid_value invalid_json too_large body_too_large body_too_slow unsupported_media_type overloaded"
    " rate_limit_exceeded model_not_found runs_unavailable".split()
)
"""Codes of other endpoints that the inference endpoints have too."""
_REF = "#/components/schemas/{model}"


def schema_ref(kind: Any) -> Json:
    """A reference to the schema of this type, or of this name, in the document."""
    return {"$ref": _REF.format(model=kind if isinstance(kind, str) else kind.__name__)}


def _all_endpoints() -> list[Endpoint]:
    return [one for each in ENDPOINTS.values() for one in (each, *each.further)]


REPLIES: Mapping[str, Any] = {
    each.__name__: each
    for each in (
        *(reply for _, reply, _ in (*INFERENCE.values(), *POSTED.values())),
        *(each.reply for each in _all_endpoints() if isinstance(each.reply, type)),
        reply_types.Error,
        reply_types.MessagesError,
        ollama_types.OllamaError,
    )
}
"""The types of all JSON replies, by name."""


def create_router(gatekeeper: Gatekeeper, keyed: bool) -> PlainRoutes:
    """Serves the document to keys that may read /v1/models. It is made for its first reader, not at every start."""
    router = PlainRoutes()

    @router.get(DOCUMENT_PATH)
    async def openapi(request: Request) -> Json:
        await gatekeeper.authenticate(*credentials(request), "run")
        # In a thread: the schemas take half a second, and runs go on.
        return await asyncio.to_thread(document, keyed)

    return router


def document(keyed: bool) -> Json:
    """The document of a server with or without keys."""
    codes = _only(errors.codes(), lambda code: keyed or code not in _ABOUT_KEYS)
    inference = {path: {"post": _inference_operation(path, _inference_codes(codes))} for path in APIS}
    posted = {path: {"post": _posted_operation(path, _inference_codes(codes))} for path in POSTED}
    others = {
        path: {
            each.method: _operation(path, each, codes),
            **{one.method: _operation(path, one, codes, f"_{one.method}") for one in each.further},
        }
        for path, each in ENDPOINTS.items()
    }
    keys = {
        "Key": {"type": "http", "scheme": "bearer"},
        "XKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    secured: Json = {"security": [{"Key": []}, {"XKey": []}]} if keyed else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cappella", "version": cappella.__version__, "license": {"name": "Apache-2.0"}},
        **secured,
        "paths": {**inference, **posted, **others},
        "components": {"schemas": _schemas(), **({"securitySchemes": keys} if keyed else {})},
    }


def _inference_codes(codes: Codes) -> Codes:
    """The codes without those that only other endpoints use."""
    elsewhere = {code for each in _all_endpoints() for code in each.refuses} - _ALSO_INFERENCE
    return _only(codes, lambda code: code not in elsewhere)


def _only(codes: Codes, is_wanted: Callable[[str], bool]) -> Codes:
    left = {status: tuple(code for code in each if is_wanted(code)) for status, each in codes.items()}
    return {status: each for status, each in left.items() if each}


def _inference_operation(path: str, codes: Codes) -> Json:
    summary, reply, _ = INFERENCE[path]
    request_type = APIS[path]
    request_types = [schema_ref(request_type)] if request_type else []
    body = {"anyOf": [*request_types, schema_ref(_direct_name(path))]}
    # Only OpenAPI 3.2, which few tools support yet, can describe the events of a stream.
    content = {"application/json": {"schema": schema_ref(reply)}, "text/event-stream": {"example": "data: {...}\n\n"}}
    return {
        "summary": summary,
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "One JSON object, or with `stream: true` server-sent events.", "content": content},
            **{str(status): _error(each, _error_schema(path)) for status, each in codes.items()},
        },
    }


def _error_schema(path: str) -> Json:
    # vLLM itself answers an invalid body with an error in OpenAI's form.
    if path.startswith("/v1/messages"):
        return {"anyOf": [schema_ref(reply_types.MessagesError), schema_ref(reply_types.Error)]}
    return schema_ref(ollama_types.OllamaError if path in OLLAMA else reply_types.Error)


def _posted_operation(path: str, codes: Codes) -> Json:
    summary, reply, needed = POSTED[path]
    if isinstance(needed, tuple):
        properties: Json = {"model": {"type": "string"}, **{name: {"type": "array"} for name in needed}}
        schema: Json = {"type": "object", "required": list(properties), "properties": properties}
    else:
        schema = schema_ref(needed)
    return {
        "summary": summary,
        "operationId": _operation_id(path),
        "requestBody": {"required": True, "content": {"application/json": {"schema": schema}}},
        "responses": {
            "200": {"description": summary, "content": _posted_content(path, reply)},
            **{str(status): _error(each, _error_schema(path)) for status, each in codes.items()},
        },
    }


def _posted_content(path: str, reply: Any) -> Json:
    lines: Json = {"application/x-ndjson": {"example": "{...}\n"}} if path in ("/api/chat", "/api/generate") else {}
    return {"application/json": {"schema": schema_ref(reply)}, **lines}


def _operation_id(path: str) -> str:
    return re.sub(r"\W+", "_", path.removeprefix("/v1")).strip("_")


def _operation(path: str, each: Endpoint, codes: Codes, suffix: str = "") -> Json:
    kind = each.reply if isinstance(each.reply, str) else "application/json"
    schema = schema_ref(each.reply) if isinstance(each.reply, type) else {"type": "string" if each.reply else "object"}
    taken = {
        kind: {"schema": schema_ref(body) if isinstance(body, type) else body} for kind, body in each.takes.items()
    }
    # Endpoints without a scope check no key; Host and Origin are checked on all.
    always = {status: codes[status] for status in (401, 403, 500) if status in codes and (each.scope or status == 403)}
    refusals = {**_only(codes, lambda code: code in each.refuses), **always}
    return {
        "summary": each.summary,
        "operationId": _operation_id(path) + suffix,
        **({} if each.scope else {"security": []}),
        **({"parameters": list(each.parameters)} if each.parameters else {}),
        **({"requestBody": {"required": True, "content": taken}} if taken else {}),
        "responses": {
            **{
                str(ok): {"description": each.summary, "content": {kind: {"schema": schema}}}
                for ok in (each.ok, *each.others)
            },
            **{str(status): _error(codes, _error_schema(path)) for status, codes in sorted(refusals.items())},
        },
    }


def _error(codes: tuple[str, ...], schema: Json) -> Json:
    retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    headers = {"headers": retry} if {"overloaded", "model_not_ready"} & set(codes) else {}
    return {"description": ", ".join(codes), **headers, "content": {"application/json": {"schema": schema}}}


@cache
def _schemas() -> Json:
    request_types = [request_type for request_type in APIS.values() if request_type]
    further = [needed for _, _, needed in POSTED.values() if not isinstance(needed, tuple)]
    further += [body for each in _all_endpoints() for body in each.takes.values() if isinstance(body, type)]
    _, defined = models_json_schema([(each, "validation") for each in (*request_types, *further)], ref_template=_REF)
    for request_type in request_types:
        defined["$defs"][request_type.__name__]["properties"]["model"]["pattern"] = f"^{PREFIX}"
    for path, fields in ENSEMBLES.items():
        schema = defined["$defs"][_name_of(path)]
        schema["properties"] = {**_not_honoured(fields), **schema["properties"]}
        schema["additionalProperties"] = True
    direct = {_direct_name(path): _direct(path) for path in APIS}
    return {**defined["$defs"], **direct, **reply_types.schemas(REPLIES.values(), _REF)}


def _direct_name(path: str) -> str:
    return f"Model{INFERENCE[path][1].__name__}Request"


def _direct(path: str) -> Json:
    """The request to a model called by its own name. The engine checks the values, beyond `limits`."""
    needed = INFERENCE[path][2]
    known: Json = {
        "model": {"type": "string", "not": {"pattern": f"^{PREFIX}"}},
        "n": {"type": "integer", "minimum": 1, "maximum": Limits().samples},
        "messages": {"type": "array", "maxItems": Limits().messages},
    }
    honoured = {name: known.get(name, {}) for name in sorted(MODELS[path].honoured.split())}
    optional = {**_not_honoured(MODELS[path]), **honoured}
    about = "A request to one model. vLLM's documentation describes the values that this schema leaves open."
    return {
        "type": "object",
        "description": about,
        "properties": {**optional, "model": known["model"]},
        "required": ["model", needed],
        "additionalProperties": True,
    }


def _name_of(path: str) -> str:
    request_type = APIS[path]
    assert request_type
    return request_type.__name__


def _not_honoured(fields: Fields) -> Json:
    """The fields of a policy that change nothing, and those that may only ask for nothing."""
    about = {"hint": "A hint: accepted, and it changes nothing.", "told": "Ignored, and named in fusion.ignored."}
    out: Json = {name: {"description": about[rule]} for name, rule in fields.rules.items() if rule in about}
    for name, instead in fields.refused.items():
        nothing = [None, *fields.nothing.get(name, ())]
        out[name] = {"description": f"Asks for nothing, or is refused: {instead}.", "enum": nothing}
    return out
