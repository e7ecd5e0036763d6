"""Messages of the chat API, and their parts: texts, images, calls of tools."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, Tag, WithJsonSchema, model_validator

from cappella.gateway.formats.fields import Wire, kind_or
from cappella.gateway.formats.policy_parts import NO_URLS


def _data_url(url: str) -> str:
    if not url.startswith("data:image/"):
        raise ValueError(NO_URLS)
    return url


DataUrl = Annotated[str, AfterValidator(_data_url), WithJsonSchema({"type": "string", "pattern": "^data:image/"})]
"""An image as a data URL; other URLs are refused, since the server makes no requests of its own."""


class TextPart(Wire):
    type: Literal["text"]
    text: str


class RefusalPart(Wire):
    """What a model said instead of an answer; it is read as its text."""

    type: Literal["refusal"]
    refusal: str


class ImageUrl(Wire):
    url: DataUrl
    detail: Literal["auto", "low", "high"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _address_alone(cls, value: Any) -> Any:
        return {"url": value} if isinstance(value, str) else value


class ImagePart(Wire):
    type: Literal["image_url"]
    image_url: ImageUrl


class FunctionCall(Wire):
    name: str
    arguments: str


class CallPart(Wire):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall


class CustomCall(Wire):
    name: str
    input: str


class CustomCallPart(Wire):
    id: str
    type: Literal["custom"]
    custom: CustomCall


TextContent = str | list[TextPart]
MixedContent = str | Annotated[list[Annotated[TextPart | ImagePart, Field(discriminator="type")]], Field(min_length=1)]
SpokenContent = str | list[Annotated[TextPart | RefusalPart, Field(discriminator="type")]]
ToolCalls = Annotated[
    list[
        Annotated[Annotated[CallPart, Tag("function")] | Annotated[CustomCallPart, Tag("custom")], kind_or("function")]
    ],
    Field(min_length=1),
]


class SystemMessage(Wire):
    role: Literal["system", "developer"]
    content: TextContent
    name: str | None = None


class UserMessage(Wire):
    role: Literal["user"]
    content: MixedContent
    name: str | None = None


class AssistantMessage(Wire):
    """An earlier answer; `reasoning_content` is another name of `reasoning`."""

    role: Literal["assistant"]
    content: SpokenContent | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    tool_calls: ToolCalls | None = None
    name: str | None = None


class ToolMessage(Wire):
    role: Literal["tool"]
    content: MixedContent
    tool_call_id: str
    name: str | None = None


ChatMessage = Annotated[SystemMessage | UserMessage | AssistantMessage | ToolMessage, Field(discriminator="role")]
