"""Text as text: what a tokenizer would read as a token of control is broken up, wherever in a prompt it stands.

vLLM renders the chat template with all texts in it and tokenizes the whole: a text that holds `<|im_end|>` ends its turn.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cappella.types import Message, Prompt

BREAK = "\u200b"
"""A space of no width, put behind a token's first character."""

WELL_KNOWN = (
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
"""Tokens of control of known families, for a model whose tokenizer is not here."""


class PlainText:
    """For one tokenizer. `markup` is what an assistant's own turn may hold, such as `<think>`, and nobody else's."""

    def __init__(self, special_tokens: Sequence[str] = (), markup: Sequence[str] = ()) -> None:
        self._everywhere = _Breaker([*special_tokens, *markup])
        self._assistants = _Breaker(special_tokens)

    def prompt(self, prompt: Prompt) -> Prompt:
        """The same, with no text in it that the tokenizer would take for more."""
        messages = [self._message(message) for message in prompt.messages]
        return replace(prompt, messages=messages, tools=[self._everywhere.value(tool) for tool in prompt.tools])

    def _message(self, message: Message) -> Message:
        breaker = self._assistants if message["role"] == "assistant" else self._everywhere
        return {name: breaker.value(value) for name, value in message.items()}


class _Breaker:
    """Breaks up any of the tokens, also one that would come about only where two parts of a message are put together."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = [token for token in dict.fromkeys(tokens) if len(token) > 1]
        # Most text holds none of these, and is done with soon.
        self._heads = {token[:2] for token in self._tokens}
        self._beginnings = {token[:end] for token in self._tokens for end in range(1, len(token))}
        self._longest = max(map(len, self._tokens), default=0)

    def value(self, value: Any) -> Any:
        """Every text below, the keys of objects too."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, list | tuple):
            each = [self.value(part) for part in value]
            return [self._ended(part) for part in each[:-1]] + each[-1:]
        if isinstance(value, dict):
            return {self.text(name): self.value(each) for name, each in value.items()}
        return value

    def text(self, text: str) -> str:
        if any(head in text for head in self._heads):
            for token in self._tokens:
                text = text.replace(token, f"{token[0]}{BREAK}{token[1:]}")
        return text

    def _ended(self, part: Any) -> Any:
        """A part that the next one cannot go on from."""
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str) and any(text[-n:] in self._beginnings for n in range(1, self._longest)):
            return {**part, "text": text + BREAK}
        return part
