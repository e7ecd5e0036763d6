"""Types of the gateway's JSON replies: the gateway builds its replies as these, and makes the OpenAPI document of them.

A key that is not required is present only where it has a value. A single model's reply is vLLM's own: it has the same
shape without `fusion`, and may have more keys.
"""

from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.engines.status import Action, EngineState
from cappella.telemetry.trace_types import CallCost, Count, FailedModel, PanelAnswer, Run, RunSummary, Trace, Usage
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


class LastFailure(TypedDict):
    """Why an engine ended last; `time` is in seconds since 1970."""

    time: float
    reason: str
    log: str | None


class EngineNow(TypedDict):
    """What every key may see of an engine; `progress` of its start runs from 0 to 1."""

    state: EngineState
    stage: str
    progress: float
    remaining_s: float | None


class EngineStatusNow(EngineNow):
    """The whole status of an engine. `reason` is why it does not run; `last_failure` stays after a recovery."""

    restarts: Count
    restarts_asked: Count
    reason: str | None
    last_failure: LastFailure | None


class EngineReadiness(EngineStatusNow):
    model: str


class GpuNow(TypedDict):
    """One GPU as the driver reports it; `linked` are the indices of those with a fast link to it."""

    index: Count
    uuid: str
    name: str
    total_bytes: Count
    free_bytes: Count
    busy_percent: Count | None
    numa_node: int | None
    linked: list[Count]


class Readiness(TypedDict):
    """`ready` if every ensemble can answer."""

    ready: bool
    ensembles: dict[str, bool]
    engines: dict[str, EngineReadiness]
    gpus: list[GpuNow]


class EnsembleNow(TypedDict):
    answers: bool
    panel: list[str]
    judge: str
    presets: list[str]
    waiting: Count
    in_flight: Count


class PlannedBytes(TypedDict):
    """Planned memory of an engine, on each of its GPUs."""

    weight_bytes: Count
    kv_cache_bytes: Count
    overhead_bytes: Count


class EnginePlace(TypedDict):
    """Where an engine is placed: `turn` is its swap group, null if it never sleeps; a remote model has no plan."""

    gpus: list[Count]
    turn: Count | None
    planned: PlannedBytes | None


class EngineFigures(TypedDict):
    """The engine's own figures; null where unknown. `kv_usage` is a share, from 0 to 1."""

    kv_usage: float | None
    running: Count | None
    waiting: Count | None
    tokens_per_s: float | None


class EngineDetails(EngineStatusNow, EnginePlace, EngineFigures):
    """What an operator sees of an engine; `actions` are those possible now."""

    adapters: list[str]
    url: str | None
    used_bytes: Count | None
    actions: list[Action]


class MemoryNow(TypedDict):
    """One GPU, or the machine's memory; `engines` are the planned bytes on it by engine."""

    device: str
    total_bytes: Count
    free_bytes: Count
    busy_percent: Count | None
    engines: dict[str, Count]


class Queue(TypedDict):
    waiting: dict[str, Count]
    in_flight: dict[str, Count]
    max_waiting: Count


class Machine(TypedDict):
    """Engines, ensembles, memory and queue; details of engines, memory and queue are for operators alone."""

    time: float
    version: str
    runs_kept: bool
    ensembles: dict[str, EnsembleNow]
    engines: dict[str, EngineDetails] | dict[str, EngineNow]
    memory: NotRequired[list[MemoryNow]]
    queue: NotRequired[Queue]


class Engine(TypedDict):
    engine: str
    state: EngineState
    stage: str
    actions: list[Action]


class Runs(TypedDict):
    object: Literal["list"]
    data: list[RunSummary]


class ErrorBody(TypedDict):
    """`place`, `problem` and `hint` are of a config error; `responses` and `failed_models` of a panel that failed."""

    message: str
    type: str
    param: NotRequired[str | None]
    code: NotRequired[str | int | None]
    responses: NotRequired[list[PanelAnswer]]
    failed_models: NotRequired[list[FailedModel]]
    place: NotRequired[str]
    problem: NotRequired[str]
    hint: NotRequired[str]


class Error(TypedDict):
    """`param` names the field that is wrong, `code` is a word for programs; a refusal by vLLM has a number."""

    error: ErrorBody


class MessagesError(TypedDict):
    """An error in Anthropic's form, with the other fields of ours in it."""

    type: Literal["error"]
    error: ErrorBody


class Reloaded(TypedDict):
    """The engines that a reload started, ended and kept, and the ensembles that are served now."""

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
"""The replies of all endpoints, by their names in the OpenAPI document."""


def schemas(ref_template: str) -> Json:
    """The JSON schemas of all replies and of their parts, by name."""
    mode: Literal["serialization"] = "serialization"
    adapters = [(name, mode, TypeAdapter(each)) for name, each in REPLIES.items()]
    _, defined = TypeAdapter.json_schemas(adapters, ref_template=ref_template)
    return dict(defined["$defs"])
