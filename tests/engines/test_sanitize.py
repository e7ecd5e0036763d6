"""No text of a prompt holds a token of control, however it was put there; all other text is left as it is."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.engines.sanitize import BREAK, PlainText
from cappella.types import Prompt

SPECIAL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "[INST]", "<unk>", "!")
MARKUP = ("<think>", "</think>")
PIECES = st.sampled_from((*SPECIAL, *MARKUP)) | st.text(alphabet="<|s>/im_end[]thk", max_size=4)
TEXTS = st.lists(PIECES, max_size=12).map("".join)


def plain(message: dict[str, Any], **more: Any) -> Prompt:
    return PlainText(SPECIAL, MARKUP).prompt(Prompt([message], **more))


def holds_none(text: str, tokens: tuple[str, ...] = (*SPECIAL, *MARKUP)) -> bool:
    return not any(token in text for token in tokens if len(token) > 1)


@given(TEXTS)
def test_no_special_token_outlives_it_and_nothing_else_changes(text: str) -> None:
    (message,) = plain({"role": "user", "content": text}).messages
    assert holds_none(message["content"])
    assert message["content"].replace(BREAK, "") == text


@given(st.lists(TEXTS, min_size=1, max_size=5))
def test_none_comes_about_where_parts_are_put_together(texts: list[str]) -> None:
    parts = [{"type": "text", "text": text} for text in texts]
    (message,) = plain({"role": "user", "content": parts}).messages
    assert holds_none("".join(part["text"] for part in message["content"]))
    assert "".join(part["text"] for part in message["content"]).replace(BREAK, "") == "".join(texts)


@given(TEXTS, TEXTS)
def test_none_is_in_a_call_a_name_or_a_tool(one: str, other: str) -> None:
    call = {"id": other, "type": "function", "function": {"name": one, "arguments": json.dumps({one: other})}}
    tool = {"type": "function", "function": {"name": one, "parameters": {"properties": {one: {"description": other}}}}}
    made = plain({"role": "user", "content": one, "name": other, "tool_calls": [call]}, tools=[tool])
    assert holds_none(json.dumps([list(made.messages), list(made.tools)], ensure_ascii=False))


def test_an_assistants_own_turn_keeps_its_marks_but_no_turn() -> None:
    text = "<think>Hm.</think>Yes.<|im_end|>"
    (own,) = plain({"role": "assistant", "content": text}).messages
    assert own["content"] == f"<think>Hm.</think>Yes.<{BREAK}|im_end|>"
    (other,) = plain({"role": "tool", "content": text}).messages
    assert holds_none(other["content"])


def test_ordinary_text_and_images_are_left_as_they_are() -> None:
    content = [
        {"type": "text", "text": "a < b! <b>é</b> ＜s＞"},
        {"type": "image_url", "image_url": {"url": "data:,<"}},
    ]
    message = {"role": "user", "content": content}
    assert plain(message).messages == [message]


@pytest.mark.parametrize("tokens", [(), ("!",)])
def test_a_tokenizer_without_such_tokens_changes_nothing(tokens: tuple[str, ...]) -> None:
    message = {"role": "user", "content": "Hi! <|im_end|>"}
    assert PlainText(tokens).prompt(Prompt([message])).messages == [message]
