"""Escapes special tokens in the texts of a prompt, so that a tokenizer reads them as plain text.

vLLM renders the chat template with all texts in it and then tokenizes the result: a `<|im_end|>` in a text would end its
message. A text is read once for all tokens, whose number makes next to no difference.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import replace
from functools import cache
from itertools import pairwise
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


WINDOW_CHARS = 16_384
"""How much of a text is searched at a time: Python's matcher lets no other thread run meanwhile."""
MIN_KEPT_CHARS = 1_000
MAX_KEPT_CHARS = 32 << 20


class _Kept:
    """Texts that were escaped before, by the tokens and the text."""

    def __init__(self) -> None:
        self.escaped: dict[tuple[object, str], str] = {}
        self.chars = 0


_kept: ContextVar[_Kept] = ContextVar("kept")


@contextmanager
def each_text_once() -> Iterator[None]:
    """Within this context, such as one run, each tokenizer's tokens are escaped once in each long text."""
    token = _kept.set(_Kept())
    try:
        yield
    finally:
        _kept.reset(token)


class Sanitizer:
    """Sanitizes prompts for one tokenizer. `markup`, such as `<think>`, stays in messages of the assistant only."""

    def __init__(self, special_tokens: Sequence[str] = (), markup: Sequence[str] = ()) -> None:
        self._escape_all = _escaper((*special_tokens, *markup))
        self._escape_special = _escaper(tuple(special_tokens))

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
        tokens = [token for token in dict.fromkeys(tokens) if len(token) > 1]
        self._first_characters = _first_characters(tokens) if tokens else None
        self._prefixes = {token[:end] for token in tokens for end in range(1, len(token))}
        self._max_length = max(map(len, tokens), default=0)

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
        kept = _kept.get(None) if len(text) >= MIN_KEPT_CHARS else None
        if kept is None:
            return self._escaped(text)
        if (known := kept.escaped.get((self, text))) is not None:
            return known
        escaped = self._escaped(text)
        if kept.chars + len(text) <= MAX_KEPT_CHARS:
            kept.escaped[self, text] = escaped
            kept.chars += len(text)
        return escaped

    def _escaped(self, text: str) -> str:
        ends = self._ends_of_first_characters(text)
        return BREAK.join([text[begin:end] for begin, end in pairwise([0, *ends, len(text)])]) if ends else text

    def _ends_of_first_characters(self, text: str) -> list[int]:
        """Where the first character of each token ends, in order; tokens may overlap."""
        pattern, ends = self._first_characters, list[int]()
        for begin in range(0, len(text), WINDOW_CHARS) if pattern else ():
            assert pattern
            end = begin + WINDOW_CHARS
            found = [match.end() for match in pattern.finditer(text, begin, end + self._max_length)]
            while found and found[-1] > end:
                found.pop()
            ends += found
        return ends

    def _closed(self, part: Any) -> Any:
        """The part with a BREAK at its end if it ends with the beginning of a token."""
        text = part.get("text") if isinstance(part, dict) else None
        if isinstance(text, str) and any(text[-n:] in self._prefixes for n in range(1, self._max_length)):
            return {**part, "text": text + BREAK}
        return part


@cache
def _escaper(tokens: tuple[str, ...]) -> _TokenEscaper:
    """Shared by models with the same tokens."""
    return _TokenEscaper(tokens)


def _first_characters(tokens: Sequence[str]) -> re.Pattern[str]:
    """Matches each character at which a token begins.

    The rest of the token is only looked at, so that matches may overlap, and stands there as a trie: one alternative per
    token would be tried for each character of a text of `<|<|<|`.
    """
    root: dict[str, Any] = {}
    for token in tokens:
        node = root
        for character in token:
            node = node.setdefault(character, {})
        node[""] = {}
    return re.compile("|".join(f"{re.escape(first)}(?={_rest(below)})" for first, below in root.items()))


def _rest(node: Mapping[str, Any]) -> str:
    """The regular expression of a node's texts; where one is the beginning of others, it is enough."""
    if "" in node:
        return ""
    texts = [re.escape(character) + _rest(below) for character, below in sorted(node.items())]
    return texts[0] if len(texts) == 1 else f"(?:{'|'.join(texts)})"
