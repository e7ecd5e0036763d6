"""What goes into a model and what comes out of it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from cappella import vocabulary

Json = vocabulary.Json

Message = Json
"""One turn of a conversation in OpenAI's chat form; engines take it as it is."""


class Frozen(BaseModel):
    """A value that cannot be changed, and has no other fields than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid")


Positive = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(gt=0, le=1)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(min_length=1)]
Stops = Annotated[tuple[Stop, ...], Field(max_length=4)]


class SamplingOptions(Frozen):
    """How a model draws its tokens, as far as a config may say it; None leaves a setting to the model's own default.

    Each setting is declared here or in `Sampling` alone: members, judges, cards and requests take it from there.
    """

    temperature: Temperature | None = None
    top_p: TopP | None = None
    top_k: Annotated[int, Field(ge=-1)] | None = None
    min_p: Annotated[float, Field(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[float, Field(gt=0)] | None = None
    max_completion_tokens: Positive | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        values = self.__dict__
        return {name: value for name in _SAMPLING if (value := values.get(name)) is not None}

    @property
    def sampling(self) -> "Sampling":
        """The settings alone, where they stand among other fields."""
        return Sampling(**self.given())


def _listed(stop: object) -> object:
    if stop is not None and not isinstance(stop, str | list | tuple):
        raise ValueError("Input should be a string or a list of strings")
    return (stop,) if isinstance(stop, str) else stop or None


class Sampling(SamplingOptions):
    """How a model draws its tokens in one call."""

    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None
    stop: Annotated[Stops | None, BeforeValidator(_listed, json_schema_input_type=Stop | Stops | None)] = None

    def over(self, base: "Sampling") -> "Sampling":
        """`base`, with what is given here on top."""
        return base.model_copy(update=self.given())


_SAMPLING = tuple(Sampling.model_fields)


@dataclass(frozen=True, slots=True)
class Form:
    """A shape that an answer must have, as the field of the engine's API that asks for it."""

    field: Literal["response_format", "structured_outputs"]
    value: Json


@dataclass(frozen=True, slots=True)
class Prompt:
    """What a model is asked. `logprobs` is how many alternatives to report per token, None for no report at all.

    `watched` says that someone reads the answer as it comes; else the engine may send many tokens at a time.
    """

    messages: Sequence[Message]
    tools: Sequence[Json] = ()
    tool_choice: str | Json | None = None
    parallel_tool_calls: bool | None = None
    form: Form | None = None
    logprobs: int | None = None
    reasoning_effort: str | None = None
    samples: int = 1
    watched: bool = True


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a model takes beyond text: tools (and calls them), images, an effort to reason with.

    And what its server does: hold an answer to a `json_schema`, report `logprobs`, and honour the `extensions` that
    vLLM has beyond OpenAI's API (`structured_outputs`, `top_k`, `min_p`, `repetition_penalty`, several samples).
    """

    tools: bool = False
    images: bool = False
    reasoning: bool = False
    json_schema: bool = True
    logprobs: bool = True
    extensions: bool = True


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one engine call; `cached_tokens` are the part of the prompt found in the prefix cache.

    They are `estimated` where the server says nothing of them.
    """

    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    reasoning_tokens: int = 0
    estimated: bool = False


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A tool call, or a piece of one: pieces of the same `index` are joined in order."""

    index: int
    id: str = ""
    name: str = ""
    arguments: str = ""

    def joined(self, piece: "ToolCall") -> "ToolCall":
        """This with the next piece behind it."""
        return ToolCall(self.index, self.id or piece.id, self.name + piece.name, self.arguments + piece.arguments)


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a stream from an engine; `sample` says of which answer, the last ones carry reason and usage.

    `logprobs` are in OpenAI's form, one entry a token. `tokens_per_step` comes with the usage, from an engine that
    guesses ahead.
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
        """Whether it is text and nothing else."""
        more = self.reasoning or self.tool_calls or self.logprobs or self.finish_reason or self.usage
        return bool(self.content) and not more and self.stop_sequence is None

    def without_end(self) -> "Chunk":
        """What it says, without what only the last ones carry."""
        if self.finish_reason is None and self.usage is None:
            return self
        return replace(self, finish_reason=None, usage=None)
