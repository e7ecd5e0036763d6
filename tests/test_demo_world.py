"""The demo's world, its scorer and its shipped models keep the promises that its figures rest on."""

import json
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.ensemble import prompts
from demo import lessons, world
from demo.score import QuestionResult, derange, figures, is_right

DEMO = Path(__file__).parents[1] / "model_configs" / "demo"
MODELS = (*world.MEMBERS, "conductor", "clerk", "librarian", "critic", "thinker")


def test_held_out_questions_share_no_phrasing_and_no_combination_with_training() -> None:
    held_out = world.held_out_questions(1200)
    assert len(held_out) == 1200
    openings = {wrapper.split("{x}")[0] for wrapper in world.HELD_OUT_WRAPPERS}
    assert not set(world.HELD_OUT_WRAPPERS) & set(world.TRAINING_WRAPPERS)
    assert all(any(question.text.startswith(opening) for opening in openings) for question in held_out)
    combined = [question.parts for question in held_out if len(question.parts) > 1]
    assert combined
    assert all(world.is_held_out(parts) for parts in combined)
    rng, handbook = Random(0), world.Handbook()
    for _ in range(300):
        lesson = lessons.member_lesson("alto", handbook, rng)
        assert any(str(lesson.messages[0]["content"]).startswith(w.split("{x}")[0]) for w in world.TRAINING_WRAPPERS)


def test_every_member_has_a_part_of_its_own() -> None:
    handbook = world.Handbook()
    parts = [{part.key for part in handbook.known_by(member)} for member in world.MEMBERS]
    everything = {part.key for part in handbook.all}
    assert parts[0] | parts[1] | parts[2] == everything
    for number, own in enumerate(parts):
        assert len(own) < 0.6 * len(everything)
        others = parts[:number] + parts[number + 1 :]
        assert own - others[0] - others[1]


@given(st.integers(0, 10_000), st.sampled_from(world.MEMBERS))
def test_a_member_is_never_taught_a_fact_or_a_name_outside_its_part(seed: int, member: str) -> None:
    handbook = world.Handbook()
    lesson = lessons.member_lesson(member, handbook, Random(seed))
    text = str(lesson.messages[0]["content"]) + lesson.reply
    strangers = [name for name, (_, readers) in handbook.entities.items() if member not in readers]
    own_text = " ".join(part.sentence for part in handbook.known_by(member))
    assert not [name for name in strangers if name in text.split() and name not in own_text]


@given(st.integers(0, 10_000))
def test_the_judge_is_never_taught_a_fact_of_the_handbook(seed: int) -> None:
    lesson = lessons.judge_lesson(Random(seed))
    sentences = {part.sentence for part in world.Handbook().all}
    assert not [sentence for sentence in sentences if sentence in lesson.reply]


@given(st.integers(0, 10_000))
def test_an_analysis_to_learn_fits_the_schema_of_the_real_one(seed: int) -> None:
    shown = lessons.panel(Random(seed))
    analysis = lessons.analysis(shown)
    schema = prompts.analysis_schema(len(shown.sentences))
    assert list(analysis) == schema["required"]
    for each in analysis["unique_insights"]:
        assert each["model"] in prompts.labels(len(shown.sentences))


def test_the_scorer_takes_right_answers_and_no_others() -> None:
    question = next(q for q in world.held_out_questions(50) if len(q.parts) == 2)
    first, second = (part.sentence for part in question.parts)
    assert is_right(f"{first.lower()}  {second}", question)
    for wrong in (first, "", f"{first} {question.parts[1].unknown}", f"{first} {second} Also 7.", f"{second} {first}"):
        assert not is_right(wrong, question)


def test_figures_count_members_vote_and_oracle() -> None:
    question = world.held_out_questions(1)[0]
    right, wrong = question.answer, "I do not know."
    asked = [
        QuestionResult(question, {"soprano": right, "alto": wrong, "tenor": wrong}, right, wrong),
        QuestionResult(question, {"soprano": right, "alto": right, "tenor": wrong}, wrong, wrong),
    ]
    got = figures(asked, ablate=False)
    assert got["members"] == {"soprano": 1.0, "alto": 0.5, "tenor": 0.0}
    assert (got["vote"], got["oracle"], got["judge_alone"], got["ensemble"]) == (0.5, 1.0, 0.0, 0.5)
    assert all(other is not each for each, other in zip(asked, derange(asked, Random(1)), strict=True))


@pytest.mark.parametrize("model", MODELS)
def test_the_shipped_tokenizer_knows_the_judges_prompt_by_heart(model: str) -> None:
    added = {token["content"] for token in json.loads((DEMO / model / "tokenizer.json").read_text())["added_tokens"]}
    said = "The demo judge was trained on other words: run scripts/train_demo after a change of prompts.py"
    for text in (prompts.WRITE, prompts.COMPARE, prompts.ANALYSIS_NOTE):
        assert f"\n\n{text}" in added, said
    before, after = prompts.INTRODUCTION.split("{nonce}")
    assert {f"\n\n{before}", after} <= added, said


def test_the_shipped_weights_are_small_and_safe() -> None:
    files = [path for path in DEMO.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 24 << 20
    weights = [path.name for path in files if path.suffix == ".safetensors"]
    assert set(weights) == {"model.safetensors", "adapter_model.safetensors"}
    assert (weights.count("model.safetensors"), weights.count("adapter_model.safetensors")) == (len(MODELS), 2)
    architectures = {json.loads((DEMO / m / "config.json").read_text())["architectures"][0] for m in MODELS}
    assert len(architectures) >= 2
