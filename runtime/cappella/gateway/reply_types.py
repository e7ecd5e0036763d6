"""The JSON that the gateway answers with: replies are built as these types, and the OpenAPI document follows from them.

A key that is not required is there only where it says something. A single model's reply is vLLM's own: it has the same
shape without `fusion`, and may have more keys.
"""

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter

# Of the standard library's, pydantic takes none before Python 3.12.
from typing_extensions import TypedDict

from cappella.engines.status import Action, EngineState
from cappella.telemetry.trace_types import CallCost, Count, FailedModel, Milliseconds, PanelAnswer, Trace, Usage
from cappella.types import Json


class AssistantMessage(TypedDict):
    role: Literal["assistant"]
    content: NotRequired[str | None]
    reasoning: NotRequired[str | None]
    tool_calls: NotRequired[list[Json] | None]


class ChatChoice(TypedDict):
    index: Count
    message: AssistantMessage
    logprobs: NotRequired[Json | None]
    finish_reason: str | None


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: NotRequired[Count]
    model: str
    choices: list[ChatChoice]
    usage: NotRequired[Usage]
    fusion: NotRequired[Trace]


class CompletionChoice(TypedDict):
    index: Count
    finish_reason: str | None


class Completion(TypedDict):
    id: str
    object: Literal["text_completion"]
    created: NotRequired[Count]
    model: str
    choices: list[CompletionChoice]
    usage: NotRequired[Usage]


class Response(TypedDict):
    id: str
    object: Literal["response"]
    created_at: NotRequired[float]
    status: str
    error: NotRequired[Any]
    incomplete_details: NotRequired[Json | None]
    instructions: NotRequired[str | None]
    max_output_tokens: NotRequired[int | None]
    metadata: NotRequired[Json | None]
    model: str
    output: list[Json]
    parallel_tool_calls: NotRequired[bool | None]
    temperature: NotRequired[float | None]
    top_p: NotRequired[float | None]
    text: NotRequired[Json | None]
    tool_choice: NotRequired[Any]
    tools: NotRequired[list[Json]]
    truncation: NotRequired[str | None]
    usage: NotRequired[Json | None]
    fusion: NotRequired[Trace]


class ContentBlock(TypedDict):
    type: str
    text: NotRequired[str]
    thinking: NotRequired[str]
    signature: NotRequired[str | None]
    id: NotRequired[str]
    name: NotRequired[str]
    input: NotRequired[Any]


class MessageUsage(TypedDict):
    input_tokens: Count
    output_tokens: Count
    cache_read_input_tokens: NotRequired[Count | None]
    cache_creation_input_tokens: NotRequired[Count | None]
    fusion_details: NotRequired[list[CallCost]]


class Stop(TypedDict):
    stop_reason: str | None
    stop_sequence: NotRequired[str | None]


class Message(Stop):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[ContentBlock]
    usage: MessageUsage
    fusion: NotRequired[Trace]


class ModelEntry(TypedDict):
    id: str
    object: Literal["model"]
    created: Count
    owned_by: str
    panel: NotRequired[list[str]]
    judge: NotRequired[str]
    example: NotRequired[str]
    presets: NotRequired[list[str]]
    max_model_len: NotRequired[int]
    info: NotRequired[Json]


class Models(TypedDict):
    object: Literal["list"]
    data: list[ModelEntry]


class Health(TypedDict):
    status: Literal["ok"]


class EngineReadiness(TypedDict):
    model: str
    state: EngineState
    stage: str


class Readiness(TypedDict):
    ready: bool
    ensembles: dict[str, bool]
    engines: dict[str, EngineReadiness]
    gpus: list[Json]


class EnsembleNow(TypedDict):
    answers: bool
    panel: list[str]
    judge: str
    presets: list[str]
    waiting: Count
    in_flight: Count


class EngineNow(TypedDict):
    state: EngineState
    stage: str
    progress: float
    remaining_s: float | None


class MemoryNow(TypedDict):
    device: str
    total_bytes: Count
    free_bytes: Count


class Queue(TypedDict):
    waiting: dict[str, Count]
    in_flight: dict[str, Count]
    max_waiting: Count


class Machine(TypedDict):
    time: float
    version: str
    runs_kept: bool
    ensembles: dict[str, EnsembleNow]
    engines: dict[str, EngineNow]
    memory: NotRequired[list[MemoryNow]]
    queue: NotRequired[Queue]


class Engine(TypedDict):
    engine: str
    state: EngineState
    stage: str
    actions: list[Action]


class Run(TypedDict):
    """One that was kept; `messages` and `answer` are there only if the config says so."""

    id: str
    object: Literal["run"]
    time: str
    model: str
    key: str | None
    status: str
    error: NotRequired[Json | None]
    total_ms: NotRequired[Milliseconds]
    usage: NotRequired[Usage]
    fusion: NotRequired[Json]
    messages: NotRequired[list[Json]]
    answer: NotRequired[PanelAnswer | None]


class Runs(TypedDict):
    object: Literal["list"]
    data: list[Run]


class ErrorBody(TypedDict):
    message: str
    type: str
    param: NotRequired[str | None]
    code: NotRequired[str | int | None]
    responses: NotRequired[list[PanelAnswer]]
    failed_models: NotRequired[list[FailedModel]]


class Error(TypedDict):
    """`param` names the field that is wrong, `code` is a word for programs; a refusal by vLLM has a number."""

    error: ErrorBody


class AnthropicErrorBody(TypedDict):
    type: str
    message: str


class MessagesError(TypedDict):
    """An error as Anthropic has it."""

    type: Literal["error"]
    error: AnthropicErrorBody


class Reloaded(TypedDict):
    """What became of each engine, and the ensembles that are served now."""

    started: list[str]
    ended: list[str]
    kept: list[str]
    ensembles: list[str]


REPLIES: dict[str, Any] = {
    each.__name__: each
    for each in (
        ChatCompletion,
        Completion,
        Response,
        Message,
        Models,
        Health,
        Readiness,
        Machine,
        Engine,
        Run,
        Runs,
        Reloaded,
        Error,
        MessagesError,
    )
}
"""What an endpoint may answer with, by its name in the document."""


def schemas(ref_template: str) -> Json:
    """The JSON schemas of all replies and of their parts, by name."""
    mode: Literal["serialization"] = "serialization"
    adapters = [(name, mode, TypeAdapter(each)) for name, each in REPLIES.items()]
    _, defined = TypeAdapter.json_schemas(adapters, ref_template=ref_template)
    return dict(defined["$defs"])
