"""Escapes special tokens in the texts of a prompt, so that a tokenizer reads them as plain text.

vLLM renders the chat template with all texts in it and then tokenizes the result: a `<|im_end|>` in a text would end its
message.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cappella.types import Message, Prompt

BREAK = "\u200b"
"""A zero-width space, inserted after a special token's first character."""

WELL_KNOWN_SPECIAL_TOKENS = (
    # ChatML, and what Qwen, Phi and GLM have beside it
    "<|im_start|>",
    "<|im_end|>",
    "<|im_sep|>",
    "<|endoftext|>",
    "<|user|>",
    "<|assistant|>",
    "<|system|>",
    "<|observation|>",
    "<|end|>",
    "[gMASK]",
    "<sop>",
    # Llama
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|python_tag|>",
    "<|header_start|>",
    "<|header_end|>",
    "<|eot|>",
    "<<SYS>>",
    "<</SYS>>",
    # Mistral
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_CALLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    # Gemma
    "<bos>",
    "<eos>",
    "<start_of_turn>",
    "<end_of_turn>",
    # gpt-oss
    "<|start|>",
    "<|channel|>",
    "<|message|>",
    "<|call|>",
    "<|return|>",
    # DeepSeek
    "<｜begin▁of▁sentence｜>",
    "<｜end▁of▁sentence｜>",
    "<｜User｜>",
    "<｜Assistant｜>",
    # Granite
    "<|start_of_role|>",
    "<|end_of_role|>",
)
"""Special tokens of known model families, for an attached server whose tokenizer is unknown."""


class Sanitizer:
    """Sanitizes prompts for one tokenizer. `markup`, such as `<think>`, stays in messages of the assistant only."""

    def __init__(self, special_tokens: Sequence[str] = (), markup: Sequence[str] = ()) -> None:
        self._escape_all = _TokenEscaper([*special_tokens, *markup])
        self._escape_special = _TokenEscaper(special_tokens)

    def sanitize(self, prompt: Prompt) -> Prompt:
        """The prompt with all special tokens in its messages and tools escaped."""
        messages = [self._message(message) for message in prompt.messages]
        return replace(prompt, messages=messages, tools=[self._escape_all.value(tool) for tool in prompt.tools])

    def _message(self, message: Message) -> Message:
        escaper = self._escape_special if message["role"] == "assistant" else self._escape_all
        return {name: escaper.value(value) for name, value in message.items()}


class _TokenEscaper:
    """Escapes the given tokens, also one that would only form where two parts of a message are joined."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token for token in dict.fromkeys(tokens) if len(token) > 1]
        # A cheap first test: most text holds none of these.
        self._heads = {token[:2] for token in self._tokens}
        self._prefixes = {token[:end] for token in self._tokens for end in range(1, len(token))}
        self._max_length = max(map(len, self._tokens), default=0)

    def value(self, value: Any) -> Any:
        """The JSON value with all its strings escaped, the keys of objects too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            parts = [self.value(part) for part in value]
            return [self._closed(part) for part in parts[:-1]] + parts[-1:]
        if isinstance(value, dict):
            return {self.text(name): self.value(each) for name, each in value.items()}
        return value

    def text(self, text: str) -> str:
        if any(head in text for head in self._heads):
            for token in self._tokens:
                text = text.replace(token, f"{token[0]}{BREAK}{token[1:]}")
        return text

    def _closed(self, part: Any) -> Any:
        """The part with a BREAK at its end if it ends with the beginning of a token."""
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str) and any(text[-n:] in self._prefixes for n in range(1, self._max_length)):
            return {**part, "text": text + BREAK}
        return part
