"""Input items of the Responses API, and their conversion to chat messages."""

import secrets
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, Tag, model_validator

from cappella.gateway.formats import text_tools
from cappella.gateway.formats.chat_messages import with_images_of_users
from cappella.gateway.formats.fields import Wire, kind_or
from cappella.gateway.formats.message_fields import DataUrl, RefusalPart
from cappella.gateway.formats.policy import Fields, Reading, read
from cappella.gateway.formats.policy_parts import ITEMS
from cappella.types import Json, Message


class InputText(Wire):
    type: Literal["input_text", "output_text", "text", "summary_text"]
    text: str


class InputImage(Wire):
    """An image as a data URL; other URLs are refused."""

    type: Literal["input_image"]
    image_url: DataUrl
    detail: Literal["auto", "low", "high", "original"] | None = None

    @model_validator(mode="before")
    @classmethod
    def _address_in_object(cls, value: Any) -> Any:
        """The form of a chat is read, too."""
        address = value.get("image_url") if isinstance(value, dict) else None
        return {**value, "image_url": address["url"]} if isinstance(address, dict) and "url" in address else value


Part = Annotated[InputText | InputImage | RefusalPart, Field(discriminator="type")]
Content = str | Annotated[list[Part], Field(min_length=1)]


class MessageItem(Wire):
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: Content


class FunctionCallItem(Wire):
    type: Literal["function_call"]
    call_id: str
    name: str
    arguments: str
    namespace: str | None = None


class CustomCallItem(Wire):
    """The call of a tool that takes a text."""

    type: Literal["custom_tool_call"]
    call_id: str
    name: str
    input: str
    namespace: str | None = None

    @property
    def arguments(self) -> str:
        return text_tools.arguments_of(self.input)


class OutputItem(Wire):
    """The result of a call; it may be empty."""

    type: Literal["function_call_output"]
    call_id: str
    output: str | list[Part]


class CustomOutputItem(Wire):
    """The result of a call of a tool that takes a text."""

    type: Literal["custom_tool_call_output"]
    call_id: str
    output: str | list[Part]


class ReasoningText(Wire):
    type: Literal["reasoning_text", "summary_text"]
    text: str


class ReasoningItem(Wire):
    """The reasoning of an earlier turn, as the server sent it; of one without content the summary is read."""

    type: Literal["reasoning"]
    summary: list[ReasoningText] | None = None
    content: list[ReasoningText] | None = None


InputItem = Annotated[
    Annotated[MessageItem, Tag("message")]
    | Annotated[FunctionCallItem, Tag("function_call")]
    | Annotated[CustomCallItem, Tag("custom_tool_call")]
    | Annotated[OutputItem, Tag("function_call_output")]
    | Annotated[CustomOutputItem, Tag("custom_tool_call_output")]
    | Annotated[ReasoningItem, Tag("reasoning")],
    kind_or("message"),
]


def conversation(instructions: str | None, items: str | Sequence[InputItem]) -> list[Message]:
    """The items as chat messages: reasoning and calls are added to their assistant turn."""
    system: list[Message] = [{"role": "system", "content": instructions}] if instructions else []
    if isinstance(items, str):
        return [*system, {"role": "user", "content": items}]
    turns: list[Json] = []
    for item in items:
        _append(turns, item)
    return [*system, *with_images_of_users(turns)]


def continue_conversation(reading: Reading, earlier: Sequence[Json]) -> None:
    """Put earlier items before those of the request; errors go on naming the places in the client's own list."""
    own = reading.body.get("input")
    items = [{"role": "user", "content": own}] if isinstance(own, str) else own
    if not items or not isinstance(items, list):
        return
    kept = read(Fields("input", below={"input": ITEMS}), {"input": list(earlier)}).body["input"]
    places = reading.places.get(("input",), range(len(items)))
    reading.places["input",] = [0] * len(kept) + list(places)
    reading.body = {**reading.body, "input": [*kept, *items]}


def listed(item: Wire) -> Json:
    """An item as it is stored and listed: with an id, and its text in parts."""
    out = item.model_dump(exclude_none=True)
    if isinstance(item, MessageItem):
        kind = "output_text" if item.role == "assistant" else "input_text"
        parts = [{"type": kind, "text": out["content"]}] if isinstance(item.content, str) else out["content"]
        out |= {"content": parts, "status": "completed"}
    return {"id": f"item_{secrets.token_hex(12)}", **out}


def _append(turns: list[Json], item: InputItem) -> None:
    match item:
        case MessageItem(role="assistant"):
            _assistant(turns)["content"] += _text(item)
        case MessageItem():
            role = "system" if item.role == "developer" else item.role
            turns.append({"role": role, "content": _content(item.content)})
        case FunctionCallItem() | CustomCallItem():
            function = {"name": text_tools.flat_name(item.namespace, item.name), "arguments": item.arguments}
            call = {"id": item.call_id, "type": "function", "function": function}
            _assistant(turns).setdefault("tool_calls", []).append(call)
        case OutputItem() | CustomOutputItem():
            turns.append({"role": "tool", "tool_call_id": item.call_id, "content": _content(item.output)})
        case ReasoningItem():
            if thoughts := item.content or item.summary:
                _assistant(turns)["reasoning"] = "".join(part.text for part in thoughts)


def _assistant(turns: list[Json]) -> Json:
    """The current assistant turn; appends one if the last turn is another's."""
    if not turns or turns[-1]["role"] != "assistant":
        turns.append({"role": "assistant", "content": ""})
    return turns[-1]


def _text(item: MessageItem) -> str:
    if isinstance(item.content, str):
        return item.content
    return "".join(_words(part) for part in item.content if not isinstance(part, InputImage))


def _words(part: InputText | RefusalPart) -> str:
    return part.text if isinstance(part, InputText) else part.refusal


def _content(content: str | Sequence[InputText | InputImage | RefusalPart]) -> Any:
    if isinstance(content, str):
        return content
    return [
        {"type": "image_url", "image_url": {"url": part.image_url}}
        if isinstance(part, InputImage)
        else {"type": "text", "text": _words(part)}
        for part in content
    ]
