"""The size of a model's context, and of prompts by their characters, before any tokenizer has seen them."""

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from cappella.errors import EngineContextExceeded
from cappella.threads import MAX_INLINE_CHARS
from cappella.types import Json, Message, Prompt, Sampling, Usage

LONGEST_TOKEN_CHARS = 512
"""Where the tokenizer is not known, as an attached server's: known ones have at most 128, runs of spaces or dashes."""
BYTES_PER_TOKEN = 3
"""Fewer than most tokenizers have, so that an estimate is rather too high than too low."""
MESSAGE_TOKENS = 8
IMAGE_TOKENS = 1000
PART_CHARS = 500
"""Each message, and each part of one, is as much work as so many characters."""
IMAGE_CHARS = 20
"""So many of an image are as much work as one of a text: they are only copied."""


@dataclass(frozen=True, slots=True)
class ContextSize:
    """The tokens of a model's context, and the characters of its tokenizer's longest token."""

    tokens: int
    longest_token_chars: int

    def require_room(self, model: str, prompt: Prompt) -> None:
        """Raises EngineContextExceeded for a text longer than a context full of the longest token.

        vLLM refuses by the same bound, when it has rendered the text.
        """
        chars, most = prompt_chars(prompt), self.tokens * self.longest_token_chars
        if chars > most:
            reason = f"{self.tokens} tokens of at most {self.longest_token_chars} characters"
            raise EngineContextExceeded(
                f"The prompt has {chars} characters; the context of {model} has room for {most}: {reason}.", 400
            )

    def without_needless_limit(self, sampling: Sampling) -> Sampling:
        """The sampling without a limit that no answer reaches: servers refuse one that does not fit beside the prompt."""
        limit = sampling.max_completion_tokens
        return sampling if limit is None or limit < self.tokens else without_limit(sampling)


def without_limit(sampling: Sampling) -> Sampling:
    """The sampling for an answer as long as the context allows."""
    return sampling.model_copy(update={"max_completion_tokens": None})


def prompt_chars(prompt: Prompt) -> int:
    """The characters of the messages' texts; a chat template only adds to them."""
    return sum(len(text) for message in prompt.messages for text in _texts(message))


def prompt_work(prompt: Prompt) -> int:
    """The characters that reading the prompt is worth. Beyond those that are read at once it may be any number."""
    work = len(orjson.dumps(list(prompt.tools))) if prompt.tools else 0
    for message in prompt.messages:
        if work > MAX_INLINE_CHARS:
            break
        work += _work(message)
    return work


def estimate_tokens(prompt: Prompt) -> int:
    """A prompt's size in tokens, estimated from the bytes of its texts."""
    size_bytes = len(orjson.dumps(list(prompt.tools))) if prompt.tools else 0
    images = 0
    for message in prompt.messages:
        content = message.get("content")
        parts = content if isinstance(content, list) else [{"type": "text", "text": content or ""}]
        images += sum(part["type"] == "image_url" for part in parts)
        size_bytes += sum(len(str(part.get("text", "")).encode()) for part in parts)
        size_bytes += len(orjson.dumps(message["tool_calls"])) if message.get("tool_calls") else 0
    return _tokens(size_bytes) + MESSAGE_TOKENS * len(prompt.messages) + IMAGE_TOKENS * images


def estimated_usage(prompt: Prompt, written: str) -> Usage:
    """The usage of a call that nobody reports, from its texts; a prompt counts once for all samples."""
    return Usage(estimate_tokens(prompt), completion_tokens=_tokens(len(written.encode())), estimated=True)


def _tokens(size_bytes: int) -> int:
    return -(-size_bytes // BYTES_PER_TOKEN)


def _work(message: Message) -> int:
    content, calls = message.get("content"), message.get("tool_calls") or ()
    parts = len(content) if isinstance(content, list) else 1
    if (least := PART_CHARS * (parts + len(calls))) > MAX_INLINE_CHARS:
        return least
    images = sum(map(_image_chars, content)) if isinstance(content, list) else 0
    written = sum(len(call["function"]["arguments"]) for call in calls) + len(message.get("reasoning") or "")
    return written + images // IMAGE_CHARS + sum(map(len, _texts(message))) + least


def _image_chars(part: Json) -> int:
    image = part.get("image_url")
    return len(image["url"]) if image else 0


def _texts(message: Message) -> Iterator[str]:
    content = message.get("content")
    parts = content if isinstance(content, list) else [{"text": content}]
    yield from (text for part in parts if isinstance(text := part.get("text"), str))
