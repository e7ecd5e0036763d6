"""Messages and tools of a chat request as engines take them."""

from collections.abc import Sequence
from typing import Any

from cappella.gateway.formats import text_tools
from cappella.gateway.formats.fields import NamedTextTool, NamedTool, TextTool, Tool
from cappella.gateway.formats.message_fields import AssistantMessage, CallPart, ChatMessage, CustomCallPart
from cappella.types import Json, Message

IMAGE_BELOW = "[image, shown below]"
"""Stands in a tool's result for an image: many templates show images of users only."""


def messages_of(messages: Sequence[ChatMessage]) -> list[Message]:
    """The messages as engines take them."""
    return with_images_of_users([_message(message) for message in messages])


def tool_of(tool: Tool | TextTool) -> Json:
    if isinstance(tool, Tool):
        return tool.model_dump(exclude_none=True)
    text = tool.custom
    told = text.format.told if text.format else None
    return {"type": "function", "function": text_tools.function_of(text.name, text.description, told)}


def tool_choice_of(choice: str | NamedTool | NamedTextTool | None) -> str | Json | None:
    if choice is None or isinstance(choice, str):
        return choice
    name = choice.function.name if isinstance(choice, NamedTool) else choice.custom.name
    return {"type": "function", "function": {"name": name}}


def with_images_of_users(messages: Sequence[Message]) -> list[Message]:
    """The messages, with the images of tools' results moved to the user's turn that follows those results."""
    out: list[Message] = []
    images: list[Json] = []
    for message in messages:
        if message["role"] == "tool":
            message, found = _without_images(message)
            images += found
        elif images:
            message = _before_user(images, message, out)
            images = []
        out.append(message)
    return [*out, {"role": "user", "content": images}] if images else out


def _before_user(images: list[Json], message: Message, out: list[Message]) -> Message:
    """The message with the images in front if it is the user's; else they become a turn of their own."""
    if message["role"] != "user":
        out.append({"role": "user", "content": images})
        return message
    content = message["content"]
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    return {**message, "content": [*images, *parts]}


def _without_images(result: Message) -> tuple[Message, list[Json]]:
    content = result["content"]
    if isinstance(content, str):
        return result, []
    images = [part for part in content if part["type"] == "image_url"]
    if not images:
        return result, []
    texts = [part["text"] if part["type"] == "text" else IMAGE_BELOW for part in content]
    return {**result, "content": "\n".join(texts)}, images


def _message(message: ChatMessage) -> Message:
    out = message.model_dump(exclude_none=True)
    if out["role"] == "developer":
        out["role"] = "system"
    return _assistant(message, out) if isinstance(message, AssistantMessage) else out


def _assistant(message: AssistantMessage, out: Message) -> Message:
    out["content"] = _spoken(out.get("content", ""))
    thoughts = out.pop("reasoning_content", None)
    if message.reasoning is None and thoughts:
        out["reasoning"] = thoughts
    if message.tool_calls:
        out["tool_calls"] = [_call(call) for call in message.tool_calls]
    return out


def _spoken(content: Any) -> Any:
    """A refusal is the text that it is."""
    if isinstance(content, str):
        return content
    return [part if part["type"] == "text" else {"type": "text", "text": part["refusal"]} for part in content]


def _call(call: CallPart | CustomCallPart) -> Json:
    if isinstance(call, CallPart):
        return call.model_dump()
    function = {"name": call.custom.name, "arguments": text_tools.arguments_of(call.custom.input)}
    return {"id": call.id, "type": "function", "function": function}
