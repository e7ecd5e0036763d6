"""Types of the JSON replies in Ollama's form; see reply_types.py."""

from typing import NotRequired

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.telemetry.trace_types import Count, Trace
from cappella.types import Json


class OllamaError(TypedDict):
    error: str
    code: NotRequired[str | int | None]
    param: NotRequired[str | None]


class OllamaEnd(TypedDict):
    """Durations are in nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: NotRequired[str]
    total_duration: NotRequired[Count]
    load_duration: NotRequired[Count]
    prompt_eval_count: NotRequired[Count]
    prompt_eval_duration: NotRequired[Count]
    eval_count: NotRequired[Count]
    eval_duration: NotRequired[Count]
    fusion: NotRequired[Trace]


class OllamaChat(OllamaEnd):
    message: Json


class OllamaText(OllamaEnd):
    response: str
    thinking: NotRequired[str]


class OllamaVersion(TypedDict):
    version: str


class OllamaModels(TypedDict):
    models: list[Json]


class OllamaModel(TypedDict):
    details: Json
    model_info: Json
    capabilities: list[str]
