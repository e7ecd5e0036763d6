"""The OpenAPI document: the requests' own forms, the shapes of replies, every status that is told.

It says nothing of a deployment but whether it has keys. There is no page for it: those load scripts from elsewhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import get_args

from fastapi import APIRouter, Request
from pydantic.json_schema import models_json_schema

import cappella
from cappella.auth.gatekeeper import Gatekeeper
from cappella.engines.status import Action
from cappella.gateway import limits, proxy, reply_types
from cappella.gateway.model_list import PREFIX
from cappella.gateway.request import credentials
from cappella.gateway.routes import APIS
from cappella.gateway.runs import MAX_LISTED
from cappella.types import Json

Codes = Mapping[int, tuple[str, ...]]
"""By status, the codes that its errors can have."""

PATH = "/openapi.json"

# What a request itself does wrong. The rest is in app.py's table, and comes from there.
OF_REQUESTS: Codes = {
    400: tuple(
        "unknown_field invalid_value invalid_json context_length_exceeded nested_ensemble overrides_forbidden"
        " preset_not_found budget_too_small too_large".split()
    ),
    403: ("host_not_allowed", "origin_not_allowed", "scope_missing", "model_not_allowed"),
    404: ("model_not_found",),
    408: ("body_too_slow",),
    413: ("body_too_large",),
    415: ("unsupported_media_type",),
}
_REPLIES = {
    "/v1/chat/completions": ("Chat completion, of an ensemble or a model", "ChatCompletion", "messages"),
    "/v1/completions": ("Text completion, of a model", "Completion", "prompt"),
    "/v1/responses": ("OpenAI's response, of an ensemble or a model", "Response", "input"),
    "/v1/messages": ("Anthropic's message, of an ensemble or a model", "Message", "messages"),
}


_REF = "#/components/schemas/{model}"


def shape(name: str) -> Json:
    """Where a named shape stands in the document."""
    return {"$ref": _REF.format(model=name)}


@dataclass(frozen=True, slots=True)
class _Plain:
    """An endpoint that takes no body: what a key needs for it, what it refuses, other statuses with its reply's shape."""

    summary: str
    reply: str | None
    scope: str | None = None
    method: str = "get"
    others: tuple[int, ...] = ()
    refuses: Codes = field(default_factory=dict)
    parameters: tuple[Json, ...] = ()
    ok: int = 200


_LIMIT: Json = {"name": "limit", "in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": MAX_LISTED}}
_RUN_ID: Json = {"name": "run_id", "in": "path", "required": True, "schema": {"type": "string"}}
_ENGINE: Json = {"name": "name", "in": "path", "required": True, "schema": {"type": "string"}}
_ACTION: Json = {"name": "action", "in": "path", "required": True, "schema": {"enum": list(get_args(Action))}}
PLAIN: Mapping[str, _Plain] = {
    "/v1/models": _Plain("Ensembles and models that the key may call", "Models", "run"),
    "/health": _Plain("Alive", "Health"),
    "/ready": _Plain("Whether every ensemble has quorum and judge; 503 where not", "Readiness", "run", others=(503,)),
    "/metrics": _Plain("Figures for Prometheus", None, "admin"),
    "/api/runs": _Plain(
        "The latest runs that are kept, of the key or, for an admin, of all",
        "Runs",
        "run",
        refuses={400: ("unknown_field", "invalid_value"), 404: ("runs_not_kept",)},
        parameters=(_LIMIT,),
    ),
    "/api/runs/{run_id}": _Plain(
        "One of them", "Run", "run", refuses={404: ("runs_not_kept", "run_not_found")}, parameters=(_RUN_ID,)
    ),
    "/api/reload": _Plain(
        "Read the config anew and serve it",
        "Reloaded",
        "admin",
        method="post",
        refuses={400: ("config_error",), 409: ("reload_failed",)},
    ),
    "/api/machine": _Plain("Engines, ensembles, memory and queue; the last two for an admin alone", "Machine", "run"),
    "/api/engines/{name}/{action}": _Plain(
        "Begin to start an engine that was given up, to put one to sleep, to wake it or to restart it",
        "Engine",
        "admin",
        method="post",
        refuses={404: ("engine_not_found",), 409: ("action_refused",)},
        parameters=(_ENGINE, _ACTION),
        ok=202,
    ),
    PATH: _Plain("This document", None, "run"),
}


def create_router(gatekeeper: Gatekeeper, codes: Codes, keyed: bool) -> APIRouter:
    """Serves the document to whom /v1/models answers."""
    router = APIRouter()
    written = document(codes, keyed)

    @router.get(PATH)
    async def openapi(request: Request) -> Json:
        await gatekeeper.authenticate(*credentials(request), "run")
        return written

    return router


def document(codes: Codes, keyed: bool) -> Json:
    """`codes` are those of errors that no request is to blame for."""
    told = {status: (*OF_REQUESTS.get(status, ()), *codes.get(status, ())) for status in sorted({*OF_REQUESTS, *codes})}
    if not keyed:
        told.pop(401, None)
        told[403] = told[403][:2]
    asks = {path: {"post": _ask(path, _of_asking(told))} for path in APIS}
    plain = {path: {each.method: _plain(path, each, told)} for path, each in PLAIN.items()}
    keys = {
        "Key": {"type": "http", "scheme": "bearer"},
        "XKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    secured: Json = {"security": [{"Key": []}, {"XKey": []}]} if keyed else {}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cappella", "version": cappella.__version__, "license": {"name": "Apache-2.0"}},
        **secured,
        "paths": {**asks, **plain},
        "components": {"schemas": _schemas(), **({"securitySchemes": keys} if keyed else {})},
    }


def _of_asking(told: Codes) -> Codes:
    """Without what only another endpoint refuses."""
    elsewhere = {code for each in PLAIN.values() for codes in each.refuses.values() for code in codes}
    elsewhere -= {code for codes in OF_REQUESTS.values() for code in codes}
    left = {status: tuple(code for code in codes if code not in elsewhere) for status, codes in told.items()}
    return {status: codes for status, codes in left.items() if codes}


def _ask(path: str, told: Codes) -> Json:
    summary, reply, _ = _REPLIES[path]
    form = APIS[path]
    forms = [shape(form.__name__)] if form else []
    body = {"anyOf": [*forms, shape(_direct_name(path))]}
    # What one event holds, OpenAPI can only say since 3.2, which few tools read yet.
    whole = {"application/json": {"schema": shape(reply)}, "text/event-stream": {"example": "data: {...}\n\n"}}
    # vLLM refuses a body that is no form of Anthropic's in OpenAI's words.
    error = {"anyOf": [shape("MessagesError"), shape("Error")]} if path == "/v1/messages" else shape("Error")
    return {
        "summary": summary,
        "operationId": path.removeprefix("/v1/").replace("/", "_"),
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": {
            "200": {"description": "Whole, or with `stream: true` as server-sent events.", "content": whole},
            **{str(status): _error(codes, error) for status, codes in told.items()},
        },
    }


def _plain(path: str, each: _Plain, told: Codes) -> Json:
    kind = "text/plain" if path == "/metrics" else "application/json"
    schema = shape(each.reply) if each.reply else {"type": "string" if path == "/metrics" else "object"}
    # Nobody is asked for a key where none is needed; the names of hosts and pages are looked at everywhere.
    always = {status: told[status] for status in (401, 403, 500) if status in told and (each.scope or status == 403)}
    refusals = {**each.refuses, **always}
    return {
        "summary": each.summary,
        "operationId": re.sub(r"\W+", "_", path.removeprefix("/v1")).strip("_"),
        **({} if each.scope else {"security": []}),
        **({"parameters": list(each.parameters)} if each.parameters else {}),
        "responses": {
            **{
                str(ok): {"description": each.summary, "content": {kind: {"schema": schema}}}
                for ok in (each.ok, *each.others)
            },
            **{str(status): _error(codes, shape("Error")) for status, codes in sorted(refusals.items())},
        },
    }


def _error(codes: tuple[str, ...], schema: Json) -> Json:
    retry = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    hinted = {"headers": retry} if {"overloaded", "model_not_ready"} & set(codes) else {}
    return {"description": ", ".join(codes), **hinted, "content": {"application/json": {"schema": schema}}}


def _schemas() -> Json:
    forms = [form for form in APIS.values() if form]
    _, defined = models_json_schema([(form, "validation") for form in forms], ref_template=_REF)
    for form in forms:
        defined["$defs"][form.__name__]["properties"]["model"]["pattern"] = f"^{PREFIX}"
    direct = {_direct_name(path): _direct(path) for path in APIS}
    return {**defined["$defs"], **direct, **reply_types.schemas(_REF)}


def _direct_name(path: str) -> str:
    return f"Model{_REPLIES[path][1]}Request"


def _direct(path: str) -> Json:
    """What a model called by its own name may be sent. Values are the engine's to check, beyond what `limits` says."""
    needed = _REPLIES[path][2]
    known: Json = {
        "model": {"type": "string", "not": {"pattern": f"^{PREFIX}"}},
        "n": {"type": "integer", "minimum": 1, "maximum": limits.MAX_ANSWERS},
        "messages": {"type": "array", "maxItems": limits.MAX_MESSAGES},
    }
    optional = {name: known.get(name, {}) for name in sorted(proxy.FIELDS[path])}
    about = "Asked of one model. What is not said of a value here, vLLM says."
    return {
        "type": "object",
        "description": about,
        "properties": {**optional, "model": known["model"]},
        "required": ["model", needed],
        "additionalProperties": False,
    }
