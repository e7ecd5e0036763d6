"""After sanitizing no text of a prompt holds a special token, and all other text is unchanged."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.engines.sanitize import BREAK, WINDOW_CHARS, Sanitizer, each_text_once
from cappella.types import Prompt

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "<unk>", "!")
MARKUP = ("<think>", "</think>")
PIECES = st.sampled_from((*SPECIAL, *MARKUP)) | st.text(alphabet="<|s>/im_end[]thk", max_size=4)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def sanitized(message: dict[str, Any], **more: Any) -> Prompt:
    return Sanitizer(SPECIAL, MARKUP).sanitize(Prompt([message], **more))


def holds_none(text: str, tokens: tuple[str, ...] = (*SPECIAL, *MARKUP)) -> bool:
    return not any(token in text for token in tokens if len(token) > 1)


@given(TEXTS)
def test_every_special_token_is_escaped_and_nothing_else_changes(text: str) -> None:
    (message,) = sanitized({"role": "user", "content": text}).messages
    assert holds_none(message["content"])
    assert message["content"].replace(BREAK, "") == text


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_no_special_token_forms_where_parts_are_joined(texts: list[str]) -> None:
    parts = [{"type": "text", "text": text} for text in texts]
    (message,) = sanitized({"role": "user", "content": parts}).messages
    assert holds_none("".join(part["text"] for part in message["content"]))
    assert "".join(part["text"] for part in message["content"]).replace(BREAK, "") == "".join(texts)


@given(TEXTS, TEXTS)
def test_tool_calls_names_and_tools_hold_no_special_token(one: str, other: str) -> None:
    call = {"id": other, "type": "function", "function": {"name": one, "arguments": json.dumps({one: other})}}
    tool = {"type": "function", "function": {"name": one, "parameters": {"properties": {one: {"description": other}}}}}
    made = sanitized({"role": "user", "content": one, "name": other, "tool_calls": [call]}, tools=[tool])
    assert holds_none(json.dumps([list(made.messages), list(made.tools)], ensure_ascii=False))


def test_an_assistant_message_keeps_markup_but_no_special_token() -> None:
    text = "<think>Hm.</think>Yes.<|im_end|>"
    (own,) = sanitized({"role": "assistant", "content": text}).messages
    assert own["content"] == f"<think>Hm.</think>Yes.<{BREAK}|im_end|>"
    (other,) = sanitized({"role": "tool", "content": text}).messages
    assert holds_none(other["content"])


def test_ordinary_text_and_images_are_left_as_they_are() -> None:
    content = [
        {"type": "text", "text": "a < b! <b>é</b> ＜s＞"},
        {"type": "image_url", "image_url": {"url": "data:,<"}},
    ]
    message = {"role": "user", "content": content}
    assert sanitized(message).messages == [message]


@pytest.mark.parametrize("tokens", [(), ("!",)])
def test_a_tokenizer_without_such_tokens_changes_nothing(tokens: tuple[str, ...]) -> None:
    message = {"role": "user", "content": "Hi! <|im_end|>"}
    assert Sanitizer(tokens).sanitize(Prompt([message])).messages == [message]


def test_tokens_that_overlap_are_all_escaped() -> None:
    prompt = Sanitizer(("aba", "ab", "bab")).sanitize(Prompt([{"role": "user", "content": "ababab"}]))
    assert holds_none(prompt.messages[0]["content"], ("aba", "ab", "bab"))


@given(st.integers(0, 40), st.sampled_from(SPECIAL[:4]))
def test_a_token_is_found_wherever_in_a_long_text_it_stands(before: int, token: str) -> None:
    text = "x" * (WINDOW_CHARS - before) + token * 3
    (message,) = sanitized({"role": "user", "content": text}).messages
    assert message["content"] == "x" * (WINDOW_CHARS - before) + f"{token[0]}{BREAK}{token[1:]}" * 3


def test_a_run_escapes_a_long_text_once_for_all_models_with_the_same_tokens() -> None:
    message = {"role": "user", "content": "<s>" * 1000}
    with each_text_once():
        one, other = sanitized(message), sanitized(message)
        assert one.messages[0]["content"] is other.messages[0]["content"]
        mine = Sanitizer(("<unk>",)).sanitize(Prompt([message]))
        assert mine.messages[0]["content"] == message["content"]
    assert sanitized(message).messages[0]["content"] is not one.messages[0]["content"]
