"""Strings that a model's tokenizer reads as control tokens. Not all of them are marked as special there:

DeepSeek's mark of a user turn is an ordinary added token, and so are Qwen's `<think>` and `<tool_call>`.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

_NAMED = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")
_BARRED = re.compile(r"<[|｜].*[|｜]>", re.DOTALL)
_PARSED = re.compile(r"</?(think|tool|function)\w*>")
_MARK = re.compile(r"[^\w\s].*[^\w\s]", re.DOTALL)


def special_tokens(tokenizer: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, ...]:
    """The tokens marked as special by the tokenizer or its config, and those of the form `<|...|>`."""
    added = [*_added(tokenizer), *_dicts((config.get("added_tokens_decoder") or {}).values())]
    marked = [token["content"] for token in added if token.get("special")]
    barred = [text for text in (token["content"] for token in added) if _BARRED.fullmatch(text)]
    return tuple(dict.fromkeys([*marked, *barred, *(text for text in _named(config) if _MARK.fullmatch(text))]))


def markup(tokenizer: Mapping[str, Any], special: tuple[str, ...], template: str) -> tuple[str, ...]:
    """The markup of assistant turns: other added tokens that parsers look for or that the chat template writes.

    Plain words are left out, even if the tokenizer has them.
    """
    others = [token["content"] for token in _added(tokenizer) if token["content"] not in special]
    return tuple(text for text in others if _PARSED.fullmatch(text) or (text in template and _MARK.fullmatch(text)))


def longest_token_chars(tokenizer: Mapping[str, Any]) -> int | None:
    """The characters of the longest token, None without a vocabulary. Tokens of bytes stand there as one each."""
    model = tokenizer.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    # A mapping from texts to numbers, or pairs of a text and its score.
    texts = vocabulary if isinstance(vocabulary, dict) else [each[0] for each in vocabulary or () if each]
    added = (token["content"] for token in _added(tokenizer))
    return max(map(len, [*texts, *added]), default=None) if texts else None


def template_in(config: Mapping[str, Any]) -> str:
    """The chat template in a tokenizer's config, or all of them joined."""
    template = config.get("chat_template") or ""
    return template if isinstance(template, str) else "\n".join(str(each.get("template")) for each in _dicts(template))


def _added(tokenizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return list(_dicts(tokenizer.get("added_tokens") or []))


def _dicts(values: Any) -> Iterator[Mapping[str, Any]]:
    return (each for each in values if isinstance(each, dict))


def _named(config: Mapping[str, Any]) -> Iterator[str]:
    extra = config.get("extra_special_tokens") or {}
    more = [*(config.get("additional_special_tokens") or []), *(extra.values() if isinstance(extra, dict) else extra)]
    for token in [*(config.get(name) for name in _NAMED), *more]:
        text = token.get("content") if isinstance(token, dict) else token
        if isinstance(text, str):
            yield text
