"""The shapes of what the gateway answers, as JSON schemas. They say what is always there; a reply may hold more.

A single model's reply is vLLM's own: it has the same shape without `fusion`.
"""

from collections.abc import Mapping
from typing import Any, get_args

from cappella.ensemble.run import Role, Status
from cappella.types import Json
from cappella.vocabulary import Strategy

TEXT: Json = {"type": "string"}
COUNT: Json = {"type": "integer", "minimum": 0}
MS: Json = {"type": ["number", "null"], "description": "Milliseconds."}
ANYTHING: Json = {}


def record(required: Mapping[str, Json], optional: Mapping[str, Json] = {}, about: str | None = None) -> Json:
    """An object that has the required keys, and maybe others."""
    described = {"description": about} if about else {}
    shape = {"properties": {**required, **optional}, "required": list(required)}
    return {"type": "object", **described, **shape}


def many(items: Json) -> Json:
    return {"type": "array", "items": items}


def shape(name: str) -> Json:
    """Where a named shape stands in the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def const(value: str) -> Json:
    return {"type": "string", "const": value}


def maybe(schema: Json) -> Json:
    return {"anyOf": [schema, {"type": "null"}]}


def _words(of: Any) -> Json:
    return {"type": "string", "enum": list(get_args(of))}


_FAILED = record({"model": TEXT, "error": TEXT, "status_code": COUNT, "reason": TEXT}, {"partial": TEXT})
_ANSWER = record({"model": TEXT, "content": TEXT, "finish_reason": TEXT}, {"reasoning": TEXT})
_COST = record(
    {
        "role": _words(Role),
        "model": TEXT,
        "prompt_tokens": COUNT,
        "cached_tokens": COUNT,
        "completion_tokens": COUNT,
        "reasoning_tokens": COUNT,
        "ms": MS,
        "first_token_ms": MS,
    },
    about="One inner call.",
)
_MODEL = record({"id": TEXT, "object": const("model"), "created": COUNT, "owned_by": TEXT})
_CHOICE = record({"index": COUNT, "finish_reason": ANYTHING})
_CHAT_CHOICE = record({"index": COUNT, "message": record({"role": const("assistant")}), "finish_reason": ANYTHING})

SHAPES: Mapping[str, Json] = {
    "Trace": record(
        {
            "run_id": TEXT,
            "status": _words(Status),
            "strategy": _words(Strategy),
            "judge_model": TEXT,
            "analysis_models": many(TEXT),
            "failed_models": many(_FAILED),
            "labels": {"type": "object", "additionalProperties": TEXT},
            "seed": COUNT,
            "timings": {"type": "object", "additionalProperties": {"type": ["number", "null"]}},
        },
        {
            "analysis": {"type": ["object", "null"]},
            "responses": many(_ANSWER),
            "rounds": many(many(_ANSWER)),
            "preset": TEXT,
            "gate": record({"bypass": {"type": "boolean"}, "model": TEXT, "reason": TEXT}),
            "chosen": TEXT,
            "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
            "votes": {"type": "object", "additionalProperties": many(TEXT)},
            "ranking": many(TEXT),
            "early_exit": TEXT,
            "failure_reason": TEXT,
        },
        "How a run of an ensemble went; what did not happen in it is not there.",
    ),
    "Usage": record(
        {"prompt_tokens": COUNT, "completion_tokens": COUNT},
        {"total_tokens": COUNT, "fusion_details": many(_COST)},
        "Of an ensemble: the sum over all inner calls, and each of them.",
    ),
    "ChatCompletion": record(
        {"id": TEXT, "object": const("chat.completion"), "model": TEXT, "choices": many(_CHAT_CHOICE)},
        {"created": COUNT, "usage": shape("Usage"), "fusion": shape("Trace")},
    ),
    "Completion": record(
        {"id": TEXT, "object": const("text_completion"), "model": TEXT, "choices": many(_CHOICE)},
        {"created": COUNT, "usage": shape("Usage")},
    ),
    "Response": record(
        {"id": TEXT, "object": const("response"), "status": TEXT, "model": TEXT, "output": many({"type": "object"})},
        {"created_at": {"type": "number"}, "usage": {"type": ["object", "null"]}, "fusion": shape("Trace")},
    ),
    "Message": record(
        {
            "id": TEXT,
            "type": const("message"),
            "role": const("assistant"),
            "model": TEXT,
            "content": many(record({"type": TEXT})),
            "stop_reason": ANYTHING,
            "usage": record({"input_tokens": COUNT, "output_tokens": COUNT}),
        },
        {"fusion": shape("Trace")},
    ),
    "Models": record({"object": const("list"), "data": many(_MODEL)}),
    "Health": record({"status": const("ok")}),
    "Readiness": record(
        {
            "ready": {"type": "boolean"},
            "ensembles": {"type": "object", "additionalProperties": {"type": "boolean"}},
            "engines": {
                "type": "object",
                "additionalProperties": record({"model": TEXT, "state": TEXT, "stage": TEXT}),
            },
            "gpus": many({"type": "object"}),
        }
    ),
    "Machine": record(
        {
            "time": {"type": "number"},
            "version": TEXT,
            "runs_kept": {"type": "boolean"},
            "ensembles": {"type": "object", "additionalProperties": record({"answers": {"type": "boolean"}})},
            "engines": {"type": "object", "additionalProperties": record({"state": TEXT, "stage": TEXT})},
        },
        {"memory": many(record({"device": TEXT, "total_bytes": COUNT, "free_bytes": COUNT})), "queue": record({})},
    ),
    "Engine": record({"engine": TEXT, "state": TEXT, "stage": TEXT, "actions": many(TEXT)}),
    "Run": record(
        {"id": TEXT, "object": const("run"), "time": TEXT, "model": TEXT, "key": maybe(TEXT), "status": TEXT},
        {"error": maybe({"type": "object"}), "total_ms": MS, "usage": shape("Usage"), "fusion": {"type": "object"}},
        "One that was kept; `messages` and `answer` are there only if the config says so.",
    ),
    "Runs": record({"object": const("list"), "data": many(shape("Run"))}),
    "Reloaded": {"type": "object", "description": "What became of each engine."},
    "Error": record(
        {
            "error": record(
                {"message": TEXT, "type": TEXT},
                {
                    "param": {"type": ["string", "null"]},
                    "code": {"type": ["string", "integer", "null"]},
                    "responses": many(_ANSWER),
                    "failed_models": many(_FAILED),
                },
            )
        },
        about="`param` names the field that is wrong, `code` is a word for programs; a refusal by vLLM has a number.",
    ),
    "MessagesError": record(
        {"type": const("error"), "error": record({"type": TEXT, "message": TEXT})},
        about="An error as Anthropic has it.",
    ),
}
