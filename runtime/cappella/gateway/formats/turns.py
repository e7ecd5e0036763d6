"""Turns and tools of the Messages API, and their conversion to those of a chat."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from cappella.gateway.formats.fields import Wire
from cappella.types import Json, Message


class TextBlock(Wire):
    type: Literal["text"]
    text: str


class ImageSource(Wire):
    type: Literal["base64"]
    media_type: Literal["image/png", "image/jpeg", "image/gif", "image/webp"]
    data: str


class ImageBlock(Wire):
    type: Literal["image"]
    source: ImageSource


class ToolUseBlock(Wire):
    type: Literal["tool_use"]
    id: str
    name: str
    input: dict[str, Any]


class ToolResultBlock(Wire):
    """`is_error` is ignored: chat templates have no place for it."""

    type: Literal["tool_result"]
    tool_use_id: str
    content: str | list[Annotated[TextBlock | ImageBlock, Field(discriminator="type")]] = ""
    is_error: bool | None = None


class ThinkingBlock(Wire):
    type: Literal["thinking"]
    thinking: str
    signature: str = ""


InputBlock = Annotated[
    TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock, Field(discriminator="type")
]


class Turn(Wire):
    role: Literal["user", "assistant", "system"]
    content: str | Annotated[list[InputBlock], Field(min_length=1)]


class ToolDefinition(Wire):
    type: Literal["custom"] | None = None
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
    description: str | None = None
    input_schema: dict[str, Any]
    strict: bool | None = None


class ToolChoice(Wire):
    type: Literal["auto", "any", "none", "tool"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


BILLING = "x-anthropic-billing-header:"
"""How the block begins that Claude Code puts first: what follows would be found in no prefix cache."""


def messages_of(turn: Turn) -> list[Message]:
    """One turn as chat messages: tool results become messages of their own, before the user's text."""
    if isinstance(turn.content, str) or turn.role == "system":
        content = turn.content if isinstance(turn.content, str) else text_of(turn.content)
        return [{"role": turn.role, "content": content}]
    results: list[Message] = [_result(block) for block in turn.content if isinstance(block, ToolResultBlock)]
    if turn.role == "assistant":
        return [*results, _assistant(turn.content)]
    parts = [part for block in turn.content if (part := _part(block)) is not None]
    return [*results, *([{"role": "user", "content": parts}] if parts else [])]


def bring_results(said: Sequence[Turn]) -> bool:
    """Whether the last turn has results of tools. Agents put reminders as text beside them, which are no new wish."""
    last = next((turn for turn in reversed(said) if turn.role != "system"), None)
    blocks = last.content if last and not isinstance(last.content, str) else ()
    return any(isinstance(block, ToolResultBlock) for block in blocks)


def _assistant(blocks: list[InputBlock]) -> Message:
    message: Json = {"role": "assistant"}
    message["content"] = text_of(blocks)
    if thoughts := [block.thinking for block in blocks if isinstance(block, ThinkingBlock)]:
        message["reasoning"] = "".join(thoughts)
    if uses := [block for block in blocks if isinstance(block, ToolUseBlock)]:
        message["tool_calls"] = [
            {"id": use.id, "type": "function", "function": {"name": use.name, "arguments": json.dumps(use.input)}}
            for use in uses
        ]
    return message


def _result(block: ToolResultBlock) -> Message:
    content: Any = block.content
    if not isinstance(block.content, str):
        seen = any(isinstance(part, ImageBlock) for part in block.content)
        parts = [part for each in block.content if (part := _part(each)) is not None]
        content = parts if seen else text_of(block.content)
    return {"role": "tool", "tool_call_id": block.tool_use_id, "content": content}


def text_of(blocks: Sequence[InputBlock]) -> str:
    """The text of blocks, without what is none."""
    return "".join(block.text for block in blocks if isinstance(block, TextBlock))


def system_of(system: str | Sequence[TextBlock] | None) -> list[Message]:
    """The system text; a line of a client's accounts, which changes with every request, is no part of it."""
    blocks = [system] if isinstance(system, str) else [block.text for block in system or ()]
    texts = [text for text in blocks if text and not text.startswith(BILLING)]
    return [{"role": "system", "content": "\n\n".join(texts)}] if texts else []


def _part(block: InputBlock) -> Json | None:
    match block:
        case TextBlock():
            return {"type": "text", "text": block.text}
        case ImageBlock():
            url = f"data:{block.source.media_type};base64,{block.source.data}"
            return {"type": "image_url", "image_url": {"url": url}}
        case _:
            return None


def tool_of(tool: ToolDefinition) -> Json:
    function = {"name": tool.name, "parameters": tool.input_schema}
    described = {"description": tool.description} if tool.description else {}
    strict = {} if tool.strict is None else {"strict": tool.strict}
    return {"type": "function", "function": {**function, **described, **strict}}


def tool_choice_of(choice: ToolChoice) -> str | Json:
    if choice.type == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return {"auto": "auto", "any": "required", "none": "none"}[choice.type]
