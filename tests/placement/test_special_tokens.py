"""The control tokens that are found in a model's tokenizer."""

import json
from pathlib import Path
from typing import Any

import pytest

from cappella.placement import folder
from support.weights_folder import write_model

ADDED = [
    {"content": "<|end|>", "special": True},
    {"content": "<｜User｜>", "special": False},
    {"content": "<think>", "special": False},
    {"content": "<tool_call>", "special": False},
    {"content": "<answer>", "special": False},
    {"content": "<table>", "special": False},
    {"content": "word", "special": False},
    {"content": "    "},
]
TEMPLATE = "{% for m in messages %}word    <answer>{{ m.content }}<|end|>{% endfor %}"


def found(path: Path, about: Any = None, template: str | None = None) -> folder.Folder:
    made = write_model(path / "w", tokenizer={"added_tokens": ADDED})
    if about is not None:
        (made / "tokenizer_config.json").write_text(json.dumps(about))
    if template is not None:
        (made / "chat_template.jinja").write_text(template)
    return folder.inspect("ann", made)


def test_tokens_that_are_marked_or_look_special_count(tmp_path: Path) -> None:
    assert found(tmp_path).special_tokens == ("<|end|>", "<｜User｜>")
    assert found(tmp_path).markup == ("<think>", "<tool_call>")


@pytest.mark.parametrize(
    "about",
    [None, {"chat_template": TEMPLATE}, {"chat_template": [{"name": "default", "template": TEMPLATE}, 7]}],
)
def test_marks_that_the_chat_template_writes_count_and_its_words_do_not(tmp_path: Path, about: Any) -> None:
    assert found(tmp_path, about, TEMPLATE if about is None else None).markup == ("<think>", "<tool_call>", "<answer>")


def test_what_the_tokenizers_config_adds_counts_too(tmp_path: Path) -> None:
    about = {
        "eos_token": {"content": "<eos>"},
        "pad_token": "!",
        "additional_special_tokens": ["[INST]", {"content": "[/INST]"}],
        "extra_special_tokens": {"image_token": "<image>"},
        "added_tokens_decoder": {"5": {"content": "<table>", "special": True}},
    }
    assert set(found(tmp_path, about).special_tokens) == {
        *("<|end|>", "<｜User｜>", "<table>", "<eos>", "[INST]", "[/INST]", "<image>")
    }


@pytest.mark.parametrize(
    ("vocabulary", "longest"),
    [({"a": 0, "Ġthere": 1}, 7), ([["<unk>", 0.0], ["▁everywhere", -1.5]], 11), ({}, None), (None, None)],
)
def test_the_longest_token_is_one_of_the_vocabulary_or_an_added_one(
    tmp_path: Path, vocabulary: Any, longest: int | None
) -> None:
    made = write_model(
        tmp_path / "w", tokenizer={"model": {"vocab": vocabulary}, "added_tokens": [{"content": "<|end|>"}]}
    )
    assert folder.inspect("ann", made).longest_token_chars == longest
