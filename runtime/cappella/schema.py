"""What a client may send. Every field here is honoured; any other is an error that names it."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from cappella.errors import RequestError
from cappella.types import AnalysisMode, Message, Overrides, Sampling

Positive = Annotated[int, Field(ge=1)]
Temperature = Annotated[float, Field(ge=0, le=2)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Stop = Annotated[str, Field(min_length=1)]
Seconds = Annotated[float, Field(gt=0, le=3600)]

# Fields that a model called by its own name may be sent: OpenAI's, and vLLM's sampling fields. The engine
# checks their values; what is not in this list never reaches it.
FORWARDED_FIELDS = frozenset(
    "model messages stream stream_options temperature top_p top_k min_p n seed stop max_tokens max_completion_tokens"
    " presence_penalty frequency_penalty repetition_penalty logit_bias logprobs top_logprobs response_format tools"
    " tool_choice parallel_tool_calls reasoning_effort user min_tokens stop_token_ids ignore_eos"
    " skip_special_tokens include_reasoning chat_template_kwargs structured_outputs".split()
)


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TextPart(Wire):
    type: Literal["text"]
    text: str


class ChatMessage(Wire):
    role: Literal["system", "user", "assistant"]
    content: str | list[TextPart]


class StreamOptions(Wire):
    include_usage: bool = False


class Fusion(Wire):
    """How this run departs from its ensemble. Precedence: request, ensemble, default."""

    analysis_models: Annotated[list[str], Field(min_length=1, max_length=8)] | None = None
    model: str | None = None
    analysis: AnalysisMode | None = None
    min_successful_responses: Positive | None = None
    round_timeout_seconds: Seconds | None = None
    deadline_seconds: Seconds | None = None
    temperature: Temperature | None = None
    max_completion_tokens: Positive | None = None
    include_analysis: bool = True
    include_intermediate_responses: bool = False
    include_events: bool = False

    @property
    def overrides(self) -> Overrides:
        return Overrides(
            panel=None if self.analysis_models is None else tuple(self.analysis_models),
            judge=self.model,
            analysis=self.analysis,
            quorum=self.min_successful_responses,
            round_timeout_s=self.round_timeout_seconds,
            deadline_s=self.deadline_seconds,
            panel_sampling=Sampling(temperature=self.temperature, max_completion_tokens=self.max_completion_tokens),
        )


class FusionPlugin(Fusion):
    """The hosted product's spelling: an entry of `plugins`."""

    id: Literal["fusion"]


class ChatRequest(Wire):
    """A chat completion asked of an ensemble. Sampling fields at this level are for the final answer."""

    model: str
    messages: Annotated[list[ChatMessage], Field(min_length=1)]
    stream: bool = False
    stream_options: StreamOptions | None = None
    temperature: Temperature | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 62)] | None = None
    stop: Stop | Annotated[list[Stop], Field(min_length=1, max_length=4)] | None = None
    max_completion_tokens: Positive | None = None
    max_tokens: Positive | None = None
    n: Literal[1] = 1
    user: str | None = None
    fusion: Fusion | None = None
    plugins: Annotated[list[FusionPlugin], Field(max_length=1)] | None = None

    @model_validator(mode="after")
    def _one_way_to_say_it(self) -> "ChatRequest":
        if self.fusion and self.plugins:
            raise ValueError("fusion and plugins say the same thing: send one of them")
        if self.max_tokens and self.max_completion_tokens:
            raise ValueError("max_tokens and max_completion_tokens say the same thing: send one of them")
        if self.stream_options and not self.stream:
            raise ValueError("stream_options needs stream: true")
        return self

    @property
    def options(self) -> Fusion:
        return self.fusion or (self.plugins[0] if self.plugins else Fusion())

    @property
    def conversation(self) -> list[Message]:
        return [message.model_dump() for message in self.messages]

    @property
    def sampling(self) -> Sampling:
        """How the final answer is drawn."""
        stop = (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ()) or None
        return Sampling(
            temperature=self.temperature,
            top_p=self.top_p,
            presence_penalty=self.presence_penalty,
            frequency_penalty=self.frequency_penalty,
            seed=self.seed,
            stop=stop,
            max_completion_tokens=self.max_completion_tokens or self.max_tokens,
        )


def parse(body: Mapping[str, Any]) -> ChatRequest:
    """Raises RequestError that names the first field that is wrong."""
    try:
        return ChatRequest.model_validate(body)
    except ValidationError as error:
        first = min(error.errors(include_url=False), key=_rank)
        where = ".".join(_spelt(body, first["loc"], first["type"] == "missing"))
        if first["type"] == "extra_forbidden":
            raise RequestError(f"{where} is not a field that an ensemble takes.", where, "unknown_field") from error
        message = first["msg"].removeprefix("Value error, ")
        raise RequestError(f"{where}: {message}" if where else message, where or None) from error


def _rank(problem: ErrorDetails) -> tuple[bool, bool]:
    """Unknown fields first; of a union, the branch whose type fits before those whose type does not."""
    return problem["type"] != "extra_forbidden", problem["type"].endswith("_type")


def _spelt(body: Any, where: Sequence[int | str], missing: bool) -> Iterator[str]:
    """`where` without the names that pydantic gives to a union's branches: only what stands in the body."""
    for number, part in enumerate(where):
        is_key = isinstance(body, Mapping) and part in body
        is_index = isinstance(body, list) and isinstance(part, int) and part < len(body)
        if is_key or is_index:
            body = body[part]
            yield str(part)
        elif missing and number == len(where) - 1:
            yield str(part)


def require_forwardable(body: Mapping[str, Any]) -> None:
    """Raises RequestError for a field that a model called by its own name does not take."""
    for name in body:
        if name in ("fusion", "plugins"):
            raise RequestError(f"{name} is for ensembles; {body['model']} is one model.", name, "unknown_field")
        if name not in FORWARDED_FIELDS:
            raise RequestError(f"{name} is not a field that a model takes.", name, "unknown_field")
