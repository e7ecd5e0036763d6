"""What goes into a model and what comes out of it. Standard library only."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Json = Mapping[str, Any]

Message = Json
"""One turn of a conversation in OpenAI's chat form; engines take it as it is."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How a model draws its tokens; None leaves a setting to the model's own default."""

    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repetition_penalty: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] | None = None
    max_completion_tokens: int | None = None

    def given(self) -> dict[str, Any]:
        """The settings that are not None."""
        return {name: value for name, value in asdict(self).items() if value is not None}

    def over(self, base: "Sampling") -> "Sampling":
        """`base`, with what is given here on top."""
        return replace(base, **self.given())


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
