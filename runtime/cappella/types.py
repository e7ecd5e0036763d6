"""The inputs and outputs of a model: prompts, sampling settings, chunks of a stream, token usage."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cappella import vocabulary

Json = vocabulary.Json

Message = Json
"""One message of a conversation in OpenAI's chat format; it is passed to engines unchanged."""


class Frozen(BaseModel):
    """An immutable value object that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Positive = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(min_length=1)]
Stops = tuple[Stop, ...]


class SamplingExtensions(Frozen):
    """The sampling settings that OpenAI's API does not have; only a server with `extensions` accepts them."""

    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    thinking_token_budget: Annotated[int, Field(ge=0)] | None = None


class SamplingOptions(SamplingExtensions):
    """The sampling settings that a config may set; None leaves a setting to the model's own default.

    Each setting is declared once: here, in `SamplingExtensions` or in `Sampling`. Members, judges, model cards and requests
    inherit it.
    """

    temperature: Temperature | None = None
    top_p: TopP | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    max_completion_tokens: Positive | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        values = self.__dict__
        return {name: value for name in _SAMPLING if (value := values.get(name)) is not None}

    @property
    def sampling(self) -> "Sampling":
        """The sampling settings alone, without the other fields of a subclass."""
        return Sampling(**self.given())


def _as_tuple(stop: object) -> object:
    if stop is not None and not isinstance(stop, str | list | tuple):
        raise ValueError("Input should be a string or a list of strings")
    return (stop,) if isinstance(stop, str) else stop or None


class Sampling(SamplingOptions):
    """The sampling settings of one call."""

    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None
    stop: Annotated[Stops | None, BeforeValidator(_as_tuple, json_schema_input_type=Stop | Stops | None)] = None

    def over(self, base: "Sampling") -> "Sampling":
        """`base`, overridden by the settings that are set here."""
        return base.model_copy(update=self.given())


_SAMPLING = tuple(Sampling.model_fields)


@dataclass(frozen=True, slots=True)
class OutputFormat:
    """A format that an answer must have, as the field of the engine's API that requests it, and its value."""

    field: Literal["response_format", "structured_outputs"]
    value: Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """The input of one model call. `logprobs` is the number of alternatives to report per token, None for no report.

    `template_words` are handed to the model's chat template, such as `enable_thinking`. `watched` means that a client reads the answer while it is generated; else the engine may send many tokens at a time. `brings_results` means that the
    last turn has results of tools, whatever texts a client has put beside them.
    """

    messages: Sequence[Message]
    tools: Sequence[Json] = ()
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    output_format: OutputFormat | None = None
    logprobs: int | None = None
    reasoning_effort: str | None = None
    template_words: Json = field(default_factory=dict)
    samples: int = 1
    watched: bool = True
    brings_results: bool = False


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model supports beyond text (`tools`, `images`, `reasoning` effort), and what its server supports.

    The server may constrain answers to a `json_schema`, report `logprobs`, and support vLLM's `extensions` of OpenAI's
    API: `structured_outputs`, the settings of `SamplingExtensions` and several samples. `context_tokens` is how much it
    reads and writes in one call, if that is known. A model whose `task` is not to generate writes nothing.
    """

    tools: bool = False
    images: bool = False
    reasoning: bool = False
    json_schema: bool = True
    logprobs: bool = True
    extensions: bool = True
    context_tokens: int | None = None
    task: vocabulary.Task = "generate"

    @property
    def writes(self) -> bool:
        return self.task == "generate"


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one engine call; `cached_tokens` are those of the prompt that were in the prefix cache.

    `estimated` is set if no server reports it: the call was cut, say.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call, or a piece of one; pieces of the same `index` are joined in order."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def joined(self, piece: "ToolCall") -> "ToolCall":
        """This call with the next piece appended."""
        return ToolCall(self.index, self.id or piece.id, self.name + piece.name, self.arguments + piece.arguments)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of an engine's stream for the answer number `sample`; the last ones carry finish reason and usage.

    `logprobs` are in OpenAI's format, one entry per token. `tokens_per_step` comes with the usage of an engine with
    speculative decoding.
    """

    content: str = ""
    reasoning: str = ""
    tool_calls: Sequence[ToolCall] = ()
    logprobs: Sequence[Json] = ()
    finish_reason: str | None = None
    usage: Usage | None = None
    sample: int = 0
    stop_sequence: str | None = None
    tokens_per_step: float | None = None

    @property
    def is_plain(self) -> bool:
        """Whether it holds text and nothing else."""
        other = self.reasoning or self.tool_calls or self.logprobs or self.finish_reason or self.usage
        return bool(self.content) and not other and self.stop_sequence is None

    def without_end(self) -> "Chunk":
        """The chunk without the finish reason and usage that only the last ones carry."""
        if self.finish_reason is None and self.usage is None:
            return self
        return replace(self, finish_reason=None, usage=None)
