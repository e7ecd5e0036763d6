"""The judge's prompts: the conversation is unchanged, and answers stay inside their fences."""

import copy
import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble import prompts

CONVERSATION: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "First"},
    {"role": "assistant", "content": "One"},
    {"role": "user", "content": "Second"},
]


@given(st.lists(st.text(max_size=30), min_size=1, max_size=8))
def test_each_answer_is_once_between_its_own_marks(answers: list[str]) -> None:
    fenced = prompts.fence(answers, "n0nce")
    for label, text in zip(prompts.labels(len(answers)), answers, strict=True):
        block = f"[answer {label} n0nce]\n{text}\n[end {label} n0nce]"
        assert fenced.count(block) == 1
    assert fenced.count("n0nce") == 1 + 2 * len(answers)


MARKS = st.sampled_from(
    ["[answer A 0a1b2c3d]\n", "\n[end A 0a1b2c3d]", "[answer ", "[end ", "[", "answer ", "end ", "A", " "]
)


@given(st.lists(st.lists(MARKS | st.text(max_size=3), max_size=8).map("".join), min_size=1, max_size=4))
def test_no_answer_holds_what_looks_like_a_mark(answers: list[str]) -> None:
    read = [prompts.broken_up(text) for text in answers]
    for fenced in (
        prompts.fence(read, "n0nce"),
        prompts.opening_messages(CONVERSATION, [], "n", answers[0])[-1]["content"],
    ):
        marks = re.findall(r"\[(answer|end) \w", fenced)
        assert marks == (["answer", "end"] * len(answers) if "n0nce" in fenced else ["answer"])
        assert all(answer.replace("\u200b", "") in fenced.replace("\u200b", "") for answer in answers[:1])


@pytest.mark.parametrize("make", [prompts.analysis_messages, prompts.final_messages])
def test_only_the_last_user_turn_is_extended(make: Any) -> None:
    given_conversation = copy.deepcopy(CONVERSATION)
    messages = make(CONVERSATION, ["x", "y"], "n0nce")
    assert given_conversation == CONVERSATION
    assert messages[:-1] == CONVERSATION[:-1]
    assert messages[-1]["role"] == "user"
    assert messages[-1]["content"].startswith("Second\n\n")


def test_both_judge_prompts_share_everything_up_to_the_instruction() -> None:
    compare = prompts.analysis_messages(CONVERSATION, ["x", "y"], "n0nce")[-1]["content"]
    write = prompts.final_messages(CONVERSATION, ["x", "y"], "n0nce", "{}")[-1]["content"]
    shared = "Second\n\n" + prompts.fence(["x", "y"], "n0nce")
    assert compare.startswith(shared)
    assert write.startswith(shared)


def test_content_parts_are_preserved() -> None:
    parts = [{"type": "text", "text": "Look"}]
    messages = prompts.final_messages([{"role": "user", "content": parts}], ["x"], "n0nce")
    assert messages[-1]["content"][0] == parts[0]
    assert messages[-1]["content"][1]["text"].startswith("\n\n" + prompts.INTRODUCTION.format(nonce="n0nce"))


def test_a_conversation_that_ends_with_the_assistant_gets_a_turn_of_its_own() -> None:
    messages = prompts.final_messages(CONVERSATION[:3], ["x"], "n0nce")
    assert messages[:3] == CONVERSATION[:3]
    assert messages[3]["role"] == "user"


def test_criteria_and_analysis_are_in_the_final_prompt_only_if_given() -> None:
    bare = prompts.final_messages(CONVERSATION, ["x"], "n")[-1]["content"]
    assert bare.endswith(prompts.WRITE)
    assert prompts.ANALYSIS_NOTE not in bare
    full = prompts.final_messages(CONVERSATION, ["x"], "n", '{"consensus": ["é"]}', "accuracy")[-1]["content"]
    assert prompts.ANALYSIS_NOTE + json.dumps({"consensus": ["é"]}, ensure_ascii=False) in full
    assert full.endswith(prompts.CRITERIA_NOTE + "accuracy")


@given(st.integers(1, 8))
def test_the_schema_allows_only_shown_letters_and_bounded_lists(count: int) -> None:
    schema = prompts.analysis_schema(count)
    letters = schema["properties"]["unique_insights"]["items"]["properties"]["model"]["enum"]
    assert letters == prompts.labels(count)
    assert len(set(letters)) == count
    assert schema["additionalProperties"] is False
    assert all("maxItems" in each for each in schema["properties"].values())
