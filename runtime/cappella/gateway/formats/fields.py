"""Request fields that several APIs share, once `policy.py` has taken out what is a hint, or unknown."""

from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    PrivateAttr,
    ValidationInfo,
    create_model,
    field_validator,
    model_validator,
)

from cappella.config.options import MAX_ANSWERS, MAX_MEMBERS, GivenAnswer, Options
from cappella.config.overrides import Overrides
from cappella.types import Frozen, Json, OutputFormat, Positive, Sampling, Temperature

MAX_REQUESTED_S = 3600
"""The longest time that a request may set, in seconds; a config may set longer ones."""

Effort = Annotated[
    Literal["none", "minimal", "low", "medium", "high", "xhigh"],
    BeforeValidator(lambda effort: "xhigh" if effort == "max" else effort),
]

Model = TypeVar("Model", bound=Frozen)


class Wire(Frozen):
    """A part of a request."""


class Reasoning(Wire):
    effort: Effort


class ModelSampling(Wire):
    """An entry of `analysis_overrides`: the sampling of one member in this run."""

    model: str
    temperature: Temperature | None = None
    max_completion_tokens: Positive | None = None

    @property
    def sampling(self) -> Sampling:
        return Sampling(temperature=self.temperature, max_completion_tokens=self.max_completion_tokens)


class CandidateAnswer(Wire):
    """An entry of `answers`: a candidate that exists already; a member of this name is not asked for its answer."""

    content: str
    model: Annotated[str, Field(min_length=1, max_length=200)] = "candidate"


def _wire_name(option: str) -> str:
    if option == "quorum":
        return "min_successful_responses"
    return option.removesuffix("_s") + "_seconds" if option.endswith("_s") else option


OPTIONS: Mapping[str, str] = {name: _wire_name(name) for name in Options.model_fields}
"""The run options, by their names in the config, and their names in requests."""


def _with_options(model: type[Model]) -> type[Model]:
    """The model with a field for each run option; null leaves it to the ensemble."""
    fields: dict[str, Any] = {}
    for name, option in Options.model_fields.items():
        declared: Any = option.annotation
        kind = Annotated[declared, *option.metadata] if option.metadata else declared
        kind = _bounded(kind) if name.endswith("_s") else kind
        fields[OPTIONS[name]] = (kind | None, Field(None, description=option.description))
    return create_model(model.__name__, __base__=model, __module__=model.__module__, __doc__=model.__doc__, **fields)


def _bounded(kind: Any) -> Any:
    """The type of a time that a request may set."""
    if get_origin(kind) in (Union, UnionType):
        return Union[tuple(_bounded(each) for each in get_args(kind))]  # noqa: UP007
    is_number = kind is float or (get_origin(kind) is Annotated and get_args(kind)[0] is float)
    return Annotated[kind, Field(le=MAX_REQUESTED_S)] if is_number else kind


@_with_options
class Fusion(Wire):
    """Options of this run that differ from its ensemble's. Precedence: request, preset, ensemble, default."""

    preset: str | None = None
    answers: Annotated[list[CandidateAnswer], Field(min_length=1, max_length=MAX_ANSWERS)] | None = None
    analysis_models: Annotated[list[str], Field(max_length=MAX_MEMBERS)] | None = None
    model: str | None = None
    temperature: Temperature | None = None
    max_completion_tokens: Positive | None = None
    reasoning: Reasoning | None = None
    analysis_overrides: Annotated[list[ModelSampling], Field(max_length=MAX_MEMBERS)] | None = None
    include_analysis: bool = True
    include_intermediate_responses: bool = False
    include_events: bool | None = None
    _ignored: tuple[str, ...] = PrivateAttr(())

    @property
    def ignored(self) -> Sequence[str]:
        """The fields of the request that were ignored."""
        return self._ignored

    @field_validator("analysis_models")
    @classmethod
    def _someone_answers(cls, models: list[str] | None, info: ValidationInfo) -> list[str] | None:
        if models == [] and not info.data.get("answers"):
            raise ValueError("it is empty: name a model, or send answers to judge instead")
        return models

    def tell_ignored(self, names: Sequence[str]) -> None:
        self._ignored = (*self._ignored, *names)

    @property
    def overrides(self) -> Overrides:
        values = self.__dict__
        return Overrides(
            preset=self.preset,
            panel=None if self.analysis_models is None else tuple(self.analysis_models),
            judge=self.model,
            options=Options(**{name: values[wire] for name, wire in OPTIONS.items() if values[wire] is not None}),
            panel_sampling=Sampling(temperature=self.temperature, max_completion_tokens=self.max_completion_tokens),
            model_sampling=tuple((each.model, each.sampling) for each in self.analysis_overrides or ()),
            answers=tuple(GivenAnswer(each.model, each.content) for each in self.answers or ()),
        )


class FusionPlugin(Fusion):
    """The same options in the hosted product's form: an entry of `plugins`, as if absent where it is not `enabled`."""

    id: Literal["fusion"]
    enabled: bool = True


SERVER_TOOL: Final = "openrouter:fusion"


class FusionTool(Wire):
    """The hosted product's server tool: a panel that the called model may ask, with the options of that run."""

    type: Literal["openrouter:fusion"]
    parameters: Fusion | None = None


class ChosenFusion(Wire):
    """A `tool_choice` that forces the server tool."""

    type: Literal["openrouter:fusion"]


def kind_or(default: str) -> Discriminator:
    """Tells a union's models apart by `type`, which may be left out for one of them."""

    def kind(value: Any) -> str:
        found = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
        return str(found or default)

    return Discriminator(kind)


ToolName = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class Function(Wire):
    name: ToolName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Wire):
    type: Literal["function"] = "function"
    function: Function


class TextFormat(Wire):
    """What a text tool takes: any text, or one by a grammar, which the model is told in words."""

    type: Literal["text", "grammar"]
    syntax: str | None = None
    definition: str | None = None
    grammar: dict[str, str] | None = None

    @property
    def told(self) -> Json:
        return {"syntax": self.syntax, "definition": self.definition, **(self.grammar or {})}


class TextFunction(Wire):
    name: ToolName
    description: str | None = None
    format: TextFormat | None = None


class TextTool(Wire):
    """A tool that takes a text; models are given it as a function of one string."""

    type: Literal["custom"]
    custom: TextFunction


AnyTool = Annotated[Tool | TextTool | FusionTool, Field(discriminator="type")]


class NamedFunction(Wire):
    name: str


class NamedTool(Wire):
    type: Literal["function"]
    function: NamedFunction


class NamedTextTool(Wire):
    type: Literal["custom"]
    custom: NamedFunction


ToolChoice = (
    Literal["none", "auto", "required"]
    | Annotated[NamedTool | NamedTextTool | ChosenFusion, Field(discriminator="type")]
)


class PlainFormat(Wire):
    type: Literal["text", "json_object"]


class NamedSchema(Wire):
    name: str
    schema_: Annotated[dict[str, Any], Field(alias="schema")]
    description: str | None = None
    strict: bool | None = None


class SchemaFormat(Wire):
    type: Literal["json_schema"]
    json_schema: NamedSchema


ResponseFormat = Annotated[PlainFormat | SchemaFormat, Field(discriminator="type")]


class StructuredOutputs(Wire):
    """vLLM's own field for an output format: exactly one of these."""

    json_: Annotated[str | dict[str, Any] | None, Field(alias="json")] = None
    regex: str | None = None
    choice: Annotated[list[str], Field(min_length=1)] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> "StructuredOutputs":
        given = [value for value in self.model_dump().values() if value is not None and value is not False]
        if len(self.model_fields_set) != 1 or not given:
            raise ValueError("structured_outputs needs exactly one kind of format")
        return self


def output_format_of(
    response_format: ResponseFormat | None, structured: StructuredOutputs | None
) -> OutputFormat | None:
    """The output format that the request sets, if any."""
    if structured is not None:
        return OutputFormat("structured_outputs", structured.model_dump(exclude_none=True, by_alias=True))
    if response_format is None or response_format.type == "text":
        return None
    return OutputFormat("response_format", response_format.model_dump(exclude_none=True, by_alias=True))
