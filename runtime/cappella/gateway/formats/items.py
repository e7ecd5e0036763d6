"""Input items of the Responses API, and their conversion to chat messages."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from cappella.gateway.formats.fields import Wire
from cappella.types import Json, Message


class InputText(Wire):
    type: Literal["input_text"]
    text: str


class OutputText(Wire):
    type: Literal["output_text"]
    text: str
    annotations: list[Any] | None = None
    logprobs: list[Any] | None = None


class InputImage(Wire):
    """An image as a data URL; other URLs are refused."""

    type: Literal["input_image"]
    image_url: Annotated[str, Field(pattern=r"^data:image/")]
    detail: Literal["auto", "low", "high"] | None = None


class Item(Wire):
    """An item as the server sent it in an earlier turn, or as the client wrote it."""

    id: str | None = None
    status: str | None = None


class MessageItem(Item):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | Annotated[list[InputText | OutputText | InputImage], Field(min_length=1)]


class FunctionCallItem(Item):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str


class FunctionOutputItem(Item):
    type: Literal["function_call_output"]
    call_id: str
    output: str


class ReasoningText(Wire):
    type: Literal["reasoning_text"]
    text: str


class ReasoningItem(Item):
    """The reasoning of an earlier turn, as the server sent it."""

    type: Literal["reasoning"]
    summary: list[Any] | None = None
    content: list[ReasoningText] | None = None


class FusionItem(Item):
    """The trace of an earlier turn, as the server sent it; it is not part of the conversation."""

    type: Literal["fusion_call"]
    fusion: dict[str, Any] | None = None


def _kind(value: Any) -> str:
    """The item's type; messages may come without one."""
    kind = value.get("type", "message") if isinstance(value, dict) else getattr(value, "type", "message")
    return str(kind)


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[FunctionOutputItem, Tag("function_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")]
    | Annotated[FusionItem, Tag("fusion_call")],
    Discriminator(_kind),
]


def conversation(instructions: str | None, items: str | Sequence[InputItem]) -> list[Message]:
    """The items as chat messages: reasoning and calls are added to their assistant turn."""
    system: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(items, str):
        return [*system, {"role": "user", "content": items}]
    turns: list[Json] = []
    for item in items:
        _append(turns, item)
    return [*system, *turns]


def _append(turns: list[Json], item: InputItem) -> None:
    match item:
        case MessageItem(role="assistant"):
            _assistant(turns)["content"] += _text(item)
        case MessageItem():
            role = "system" if item.role == "developer" else item.role
            turns.append({"role": role, "content": _content(item)})
        case FunctionCallItem():
            function = {"name": item.name, "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            _assistant(turns).setdefault("tool_calls", []).append(call)
        case FunctionOutputItem():
            turns.append({"role": "tool", "tool_call_id": item.call_id, "content": item.output})
        case ReasoningItem():
            if item.content:
                _assistant(turns)["reasoning"] = "".join(part.text for part in item.content)
        case FusionItem():
            pass


def _assistant(turns: list[Json]) -> Json:
    """The current assistant turn; appends one if the last turn is another's."""
    if not turns or turns[-1]["role"] != "assistant":
        turns.append({"role": "assistant", "content": ""})
    return turns[-1]


def _text(item: MessageItem) -> str:
    if isinstance(item.content, str):
        return item.content
    return "".join(part.text for part in item.content if not isinstance(part, InputImage))


def _content(item: MessageItem) -> Any:
    if isinstance(item.content, str):
        return item.content
    return [
        {"type": "image_url", "image_url": {"url": part.image_url}}
        if isinstance(part, InputImage)
        else {"type": "text", "text": part.text}
        for part in item.content
    ]
