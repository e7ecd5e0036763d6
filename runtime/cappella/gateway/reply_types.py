"""Types of the gateway's JSON replies: the gateway builds its replies as these, and makes the OpenAPI document of them.

A key that is not required is present only where it has a value. A single model's reply is vLLM's own: it has the same
shape without `fusion`, and may have more keys.
"""

from collections.abc import Iterable
from typing import Any, Literal, NotRequired

from pydantic import TypeAdapter

# pydantic supports that of the standard library only from Python 3.12 on.
from typing_extensions import TypedDict

from cappella.telemetry.trace_types import CallCost, Count, FailedModel, PanelAnswer, RunSummary, Trace, Usage
from cappella.types import Json
from cappella.vocabulary import Task


class AssistantMessage(TypedDict):
    """`reasoning` and `reasoning_content` are the same: clients read the one or the other."""

    role: Literal["assistant"]
    content: NotRequired[str | None]
    reasoning: NotRequired[str | None]
    reasoning_content: NotRequired[str | None]
    tool_calls: NotRequired[list[Json] | None]


class ChatChoice(TypedDict):
    index: Count
    message: AssistantMessage
    logprobs: NotRequired[Json | None]
    finish_reason: str | None


class Warned(TypedDict):
    """A model's own reply whose tokens ended while it still thought."""

    code: Literal["only_thinking"]
    message: str


class ChatCompletion(TypedDict):
    id: str
    object: Literal["chat.completion"]
    created: NotRequired[Count]
    model: str
    system_fingerprint: NotRequired[str | None]
    choices: list[ChatChoice]
    usage: NotRequired[Usage]
    fusion: NotRequired[Trace]
    warning: NotRequired[Warned]


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
    completed_at: NotRequired[float | None]
    status: str
    background: NotRequired[bool | None]
    store: NotRequired[bool | None]
    previous_response_id: NotRequired[str | None]
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
    frequency_penalty: NotRequired[float | None]
    presence_penalty: NotRequired[float | None]
    text: NotRequired[Json | None]
    tool_choice: NotRequired[Any]
    tools: NotRequired[list[Json]]
    truncation: NotRequired[str | None]
    usage: NotRequired[Json | None]
    fusion: NotRequired[Trace]


class DeletedResponse(TypedDict):
    id: str
    object: Literal["response"]
    deleted: bool


class InputItems(TypedDict):
    object: Literal["list"]
    data: list[Json]
    first_id: str | None
    last_id: str | None
    has_more: bool


class DocumentText(TypedDict):
    """The text of a document in Markdown; `pages` of a PDF's `all_pages` were read, and it is `cut` if there is more of it."""

    object: Literal["document"]
    text: str
    pages: Count | None
    all_pages: Count | None
    cut: bool


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


Output = Literal["text", "embeddings", "scores"]


class Architecture(TypedDict):
    modality: str
    input_modalities: list[Literal["text", "image"]]
    output_modalities: list[Output]


class ModelEntry(TypedDict):
    """`max_model_len` and `context_length` are the same. `panel`, `judge`, `examples`, `notice` and `presets` are an
    ensemble's, and `judge` is null where no run asks one; `alias_of` is the ensemble or model that an alias stands for. `task` is what it does, and
    `endpoints` are those that answer for it. From `pricing` to `links` are OpenRouter's
    words, and nothing costs anything.
    """

    id: str
    name: str
    canonical_slug: str
    object: Literal["model"]
    created: Count
    owned_by: str
    max_model_len: Count
    context_length: Count
    architecture: Architecture
    tools: bool
    pricing: dict[str, str]
    supported_parameters: list[str]
    default_parameters: None
    per_request_limits: None
    supported_voices: None
    top_provider: Json
    links: dict[str, str]
    panel: NotRequired[list[str]]
    judge: NotRequired[str | None]
    examples: NotRequired[list[str]]
    notice: NotRequired[str]
    presets: NotRequired[list[str]]
    task: Task
    endpoints: list[str]
    alias_of: NotRequired[str]
    info: NotRequired[Json]


class InputTokens(TypedDict):
    input_tokens: Count


class Tokens(TypedDict):
    count: Count
    max_model_len: Count
    tokens: list[int]


class Text(TypedDict):
    prompt: str


class Models(TypedDict):
    """`links` and `total_count` are OpenRouter's: all models are on one page."""

    object: Literal["list"]
    data: list[ModelEntry]
    links: dict[str, None]
    total_count: Count
    strategies: dict[str, str]


class Health(TypedDict):
    status: Literal["ok"]


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


def schemas(replies: Iterable[Any], ref_template: str) -> Json:
    """The JSON schemas of these replies and of their parts, by name."""
    mode: Literal["serialization"] = "serialization"
    adapters = [(each.__name__, mode, TypeAdapter(each)) for each in replies]
    _, defined = TypeAdapter.json_schemas(adapters, ref_template=ref_template)
    return dict(defined["$defs"])
