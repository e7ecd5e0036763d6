"""Adapts the caller's conversation to one model: its system text, its output format, and whether it sees images."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cappella.config.options import Seat, Settings
from cappella.ensemble import prompts
from cappella.types import Capabilities, Message, OutputFormat, Prompt


def for_member(prompt: Prompt, seat: Seat, capabilities: Capabilities, settings: Settings, verbatim: bool) -> Prompt:
    """The caller's prompt for one seat, with the seat's system text in front.

    For `verbatim` see `format_of_members`. A seat with tools of its own is not offered the caller's.
    """
    verbatim = verbatim or settings.early_exit != "off"
    if seat.tools.servers:
        prompt = replace(prompt, tools=(), tool_choice=None, parallel_tool_calls=None)
    return replace(
        prompt,
        messages=with_system(prompt.messages, seat.system),
        output_format=format_of_members(prompt, settings, verbatim),
        logprobs=_logprobs(prompt, capabilities, settings, verbatim),
        reasoning_effort=prompt.reasoning_effort if capabilities.reasoning else None,
        samples=seat.samples,
        watched=settings.panel_watched,
    )


def _logprobs(prompt: Prompt, capabilities: Capabilities, settings: Settings, verbatim: bool) -> int | None:
    """The caller's wish if an answer may be returned; else those of the tokens alone, where certainty counts."""
    if verbatim and prompt.logprobs is not None:
        return prompt.logprobs
    weighs = settings.strategy == "select" and "certainty" in settings.select.by
    return 0 if weighs and capabilities.logprobs else None


def format_of_members(prompt: Prompt, settings: Settings, verbatim: bool) -> OutputFormat | None:
    """The caller's output format if `formatted_panel` is set, or if a member's answer may be returned `verbatim`.

    An early exit returns one as well.
    """
    return prompt.output_format if verbatim or settings.early_exit != "off" or settings.formatted_panel else None


def for_judge(prompt: Prompt, capabilities: Capabilities) -> Prompt:
    """The caller's prompt for a model that reads answers: nothing in it looks like our marks and notes.

    For a model without vision a line of text replaces each image.
    """
    messages: Sequence[Message] = prompts.with_texts_broken_up(prompt.messages)
    messages = messages if capabilities.images else [_without_images(message) for message in messages]
    effort = prompt.reasoning_effort if capabilities.reasoning else None
    return replace(prompt, messages=messages, reasoning_effort=effort)


def with_system(messages: Sequence[Message], system: str | None) -> Sequence[Message]:
    """The messages with `system` in front. It joins an existing system message, since many templates allow only one."""
    if system is None:
        return messages
    first, *rest = messages
    if first["role"] != "system":
        return [{"role": "system", "content": system}, *messages]
    content = first["content"]
    joined: Any = f"{system}\n\n{content}" if isinstance(content, str) else [{"type": "text", "text": system}, *content]
    return [{**first, "content": joined}, *rest]


def has_images(messages: Sequence[Message]) -> bool:
    return any(part["type"] == "image_url" for message in messages for part in _parts(message))


def ends_in_results(messages: Sequence[Message]) -> bool:
    """Whether it goes on from results of tools. Their images stand after them, in a turn of the user without a text.

    A system turn after them, as clients send reminders in, is nobody's new wish.
    """
    *before, last = [message for message in messages if message["role"] != "system"] or messages
    if (
        before
        and last["role"] == "user"
        and all(part["type"] == "image_url" for part in _parts(last) or [{"type": ""}])
    ):
        last = before[-1]
    return bool(last["role"] == "tool")


def _without_images(message: Message) -> Message:
    if not any(part["type"] == "image_url" for part in _parts(message)):
        return message
    placeholder = {"type": "text", "text": prompts.IMAGE_LINE}
    content = [placeholder if part["type"] == "image_url" else part for part in message["content"]]
    return {**message, "content": content}


def _parts(message: Message) -> Sequence[Any]:
    content = message.get("content")
    return content if isinstance(content, list) else ()
