"""The gateway's endpoints as data: what each is for, its replies, its parameters and its own errors.

The OpenAPI document (`openapi.py`) is made of these tables.
"""

from collections.abc import Mapping
from typing import Any, get_args

from pydantic import BaseModel

from cappella.engines.status import Action
from cappella.gateway import (
    documents,
    judge,
    machine_types,
    ollama_types,
    pooling_types,
    reply_types,
    stored_responses,
    tokens,
)
from cappella.gateway.batch_endpoints import BATCH_ENDPOINTS
from cappella.gateway.endpoint import BYTES, Endpoint, in_path, limit_parameter, page_parameters
from cappella.gateway.formats import pooling
from cappella.gateway.formats.judge import JudgeReply, JudgeRequest
from cappella.gateway.runs import MAX_LISTED
from cappella.telemetry import trace_types
from cappella.telemetry.figures_history import FiguresOverTime
from cappella.telemetry.recent_calls import MAX_CALLS
from cappella.types import Json

DOCUMENT_PATH = "/openapi.json"
INFERENCE: Mapping[str, tuple[str, Any, str]] = {
    "/v1/chat/completions": ("Chat completion, of an ensemble or a model", reply_types.ChatCompletion, "messages"),
    "/v1/completions": ("Text completion, of a model", reply_types.Completion, "prompt"),
    "/v1/responses": ("OpenAI's response, of an ensemble or a model", reply_types.Response, "input"),
    "/v1/messages": ("Anthropic's message, of an ensemble or a model", reply_types.Message, "messages"),
}
"""Endpoints that generate: summary, type of the reply, and the field that a body needs besides `model`."""


POSTED: Mapping[str, tuple[str, Any, tuple[str, ...] | type[BaseModel]]] = {
    "/v1/embeddings": ("OpenAI's embeddings, of a model", pooling_types.Embeddings, pooling.EmbeddingsRequest),
    "/v1/rerank": (
        "Documents ranked for a query, in Cohere's and Jina's form, of a model",
        pooling_types.Ranking,
        pooling.RerankRequest,
    ),
    "/v1/score": ("vLLM's scores of pairs of texts, of a model", pooling_types.Scores, pooling.ScoreRequest),
    "/classify": (
        "The score of a conversation's last turn, of a reward model",
        pooling_types.Classes,
        pooling.ClassifyRequest,
    ),
    judge.PATH: (
        "Answers that come from elsewhere, judged: analysis, scores, ranking, preferences",
        JudgeReply,
        JudgeRequest,
    ),
    tokens.COUNT_PATH: (
        "The tokens of a message, by the model's tokenizer, or by the judge's",
        reply_types.InputTokens,
        ("messages",),
    ),
    "/tokenize": ("vLLM's token ids of a prompt or a chat, of a model", reply_types.Tokens, ()),
    "/api/chat": ("Ollama's chat, of an ensemble or a model", ollama_types.OllamaChat, ("messages",)),
    "/api/generate": ("Ollama's completion, of an ensemble or a model", ollama_types.OllamaText, ()),
    "/api/show": ("What a model or an ensemble takes, in Ollama's form", ollama_types.OllamaModel, ()),
    "/detokenize": ("The text of token ids, of a model", reply_types.Text, ("tokens",)),
}
"""Further endpoints with a body: summary, type of the reply, and the fields that a body needs besides `model`, or its type."""


_RUN_ID = in_path("run_id")
_MODEL = in_path("model")
_ENGINE = in_path("name")
_ACTION: Json = {"name": "action", "in": "path", "required": True, "schema": {"enum": list(get_args(Action))}}
_RESPONSE_ID = in_path("response_id")
_RESUMED: tuple[Json, ...] = (
    {"name": "stream", "in": "query", "schema": {"type": "boolean"}},
    {"name": "starting_after", "in": "query", "schema": {"type": "integer", "minimum": 0}},
)
_NO_RESPONSE = ("runs_not_kept", "response_not_found", "runs_unavailable")
ENDPOINTS: Mapping[str, Endpoint] = {
    "/v1/models": Endpoint("The ensembles and models that the key may call", reply_types.Models, "run"),
    "/v1/models/{model}": Endpoint(
        "One of them; its name may have slashes",
        reply_types.ModelEntry,
        "run",
        refuses=("model_not_found",),
        parameters=(_MODEL,),
    ),
    stored_responses.PATH: Endpoint(
        "One of the key's responses, where they are kept; with `stream` the events of one in the background",
        reply_types.Response,
        "run",
        refuses=(*_NO_RESPONSE, "invalid_value"),
        parameters=(_RESPONSE_ID, *_RESUMED),
        further=(
            Endpoint(
                "Delete a response, and cancel it where it is in the background",
                reply_types.DeletedResponse,
                "run",
                method="delete",
                refuses=_NO_RESPONSE,
                parameters=(_RESPONSE_ID,),
            ),
        ),
    ),
    f"{stored_responses.PATH}/cancel": Endpoint(
        "Cancel a response in the background",
        reply_types.Response,
        "run",
        method="post",
        refuses=(*_NO_RESPONSE, "invalid_value"),
        parameters=(_RESPONSE_ID,),
    ),
    f"{stored_responses.PATH}/input_items": Endpoint(
        "The conversation that a response answers, page by page",
        reply_types.InputItems,
        "run",
        refuses=(*_NO_RESPONSE, "invalid_value"),
        parameters=(_RESPONSE_ID, *page_parameters(stored_responses.MAX_LISTED)),
    ),
    "/api/version": Endpoint("The version of Ollama's API", ollama_types.OllamaVersion, "run"),
    "/api/tags": Endpoint("The ensembles and models in Ollama's form", ollama_types.OllamaModels, "run"),
    "/api/ps": Endpoint("Those that can answer now, in Ollama's form", ollama_types.OllamaModels, "run"),
    "/health": Endpoint("Liveness", reply_types.Health),
    "/ready": Endpoint(
        "Readiness: 503 unless every ensemble can answer", machine_types.Readiness, "run", others=(503,)
    ),
    "/metrics": Endpoint("Prometheus metrics", "text/plain", "admin"),
    "/api/runs": Endpoint(
        "The latest recorded runs of the key, or, for an admin, of all keys",
        reply_types.Runs,
        "run",
        refuses=("unknown_field", "invalid_value", "runs_not_kept"),
        parameters=(limit_parameter(MAX_LISTED),),
    ),
    "/api/runs/{run_id}": Endpoint(
        "One recorded run", trace_types.Run, "run", refuses=("runs_not_kept", "run_not_found"), parameters=(_RUN_ID,)
    ),
    "/api/reload": Endpoint(
        "Reload the config",
        reply_types.Reloaded,
        "admin",
        method="post",
        refuses=("config_error", "reload_failed"),
    ),
    "/api/machine": Endpoint(
        "Engines, ensembles, memory and queue; the last two for an admin only", machine_types.Machine, "run"
    ),
    "/api/engines/{name}": Endpoint(
        "What an engine serves, how it failed before, and the end of its log",
        machine_types.EngineRecord,
        "admin",
        refuses=("engine_not_found",),
        parameters=(_ENGINE,),
    ),
    "/api/figures": Endpoint(
        "The last hour of engines, queues and device memory, a sample each ten seconds", FiguresOverTime, "admin"
    ),
    "/api/calls": Endpoint(
        "The last calls of models and ensembles, with key and status",
        machine_types.Calls,
        "admin",
        refuses=("unknown_field", "invalid_value"),
        parameters=(limit_parameter(MAX_CALLS),),
    ),
    "/api/engines/{name}/{action}": Endpoint(
        "Start a failed engine, put one to sleep, wake it or restart it; the reply does not wait for the end",
        machine_types.Engine,
        "admin",
        method="post",
        refuses=("engine_not_found", "action_refused"),
        parameters=(_ENGINE, _ACTION),
        ok=202,
    ),
    **BATCH_ENDPOINTS,
    documents.PATH: Endpoint(
        "The text of a PDF or DOCX file",
        reply_types.DocumentText,
        "run",
        method="post",
        refuses=tuple(
            "invalid_value body_too_large body_too_slow unsupported_media_type overloaded rate_limit_exceeded".split()
        ),
        takes={documents.MEDIA_TYPE: BYTES},
    ),
    DOCUMENT_PATH: Endpoint("The OpenAPI document", None, "run"),
}
