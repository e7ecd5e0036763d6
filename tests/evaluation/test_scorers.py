"""Scorers: what is right, what gives one value, and what cannot be read."""

import asyncio
from typing import Any

import pytest

from cappella.errors import ConfigError
from cappella.evaluation import scorers
from cappella.evaluation.data import Question
from cappella.extraction import values
from cappella.tools.sandbox import Sandbox

USER = [{"role": "user", "content": "?"}]


def scored(name: str, text: str, answer: str | None, **more: Any) -> scorers.Score:
    return asyncio.run(scorers.score(Question("q", USER, answer, **more), name, text, None, None))


@pytest.mark.parametrize(
    ("name", "answer", "right", "wrong"),
    [
        ("exact", "Paris, France.", "paris france", "Paris"),
        ("number", "381", "17*23 = 381, so the answer is **381**.", "It is 391."),
        ("number", "1234.5", "The total is $1,234.50", "1,234"),
        ("number", "1/2", "\\boxed{0.5}", "\\boxed{2}"),
        ("number", "-3", "<answer>-3</answer> of 7", "<answer>3</answer>"),
        ("exact", "It is -5.", "it is -5", "it is 5"),
        ("exact", "1.5 m", "1.5 m.", "1 5 m"),
        ("exact", "<=", " <= ", "<"),
        ("contains", "42", "I think 42 it is", "I think 420 it is"),
        ("regex", r"ab+c", "xabbbc", "xac"),
        ("json", '{"a": 1, "b": [2]}', '```json\n{"b": [2.0], "a": 1}\n```', '{"a": 2, "b": [2]}'),
    ],
)
def test_a_right_answer_is_told_from_a_wrong_one(name: str, answer: str, right: str, wrong: str) -> None:
    assert scored(name, right, answer).right
    assert not scored(name, wrong, answer).right


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("The answer is (B).", "B"),
        ("B", "B"),
        ("**B**", "B"),
        ("A is wrong because...\n\nB", "B"),
        ("B) green", "B"),
        ("green", "B"),
        ("\\boxed{B}", "B"),
        ("I do not know", None),
        ("A map", None),
        ("Option A is wrong, as the answer is a colour of leaves.\n\nB", "B"),
        ("b", "B"),
        ("The answer is B.\n\nOption A is wrong because leaves are not red.", "B"),
        ("The answer is B, since option A is wrong.", "B"),
        ("Option A is wrong.\nSo I take option B for it.", "B"),
        ("So option B.\nI am sure of that.", "B"),
        ("B\n\nIt is the colour of leaves.", "B"),
        ("The correct answer is option B", "B"),
        ("$\\boxed{\\text{B}}$", "B"),
        ("The answer is a colour", None),
        ("My choice: a good one", None),
    ],
)
def test_a_choice_is_read_however_it_is_written(text: str, letter: str | None) -> None:
    score = scored("choice", text, "B", choices=("red", "green"))
    assert score.value == letter
    assert score.right == (letter == "B")
    assert score.unread == (letter is None)


def test_words_of_a_choice_are_whole_words() -> None:
    assert scored("choice", "none of the blue ones", "A", choices=("no", "yes")).unread
    assert scored("choice", "No, never.", "A", choices=("no", "yes")).right


@pytest.mark.parametrize(
    "text",
    [
        "Let me check my answer by adding 3 and 4.\n\n42",
        "**Answer**: 42\n\nI used 3 steps.",
        "The answer\nis 42\n\n(of 100)",
        "6 times 7\n#### 42",
    ],
)
def test_only_what_is_said_to_be_the_answer_comes_before_the_last_line(text: str) -> None:
    assert values.number(text) == "42"


@pytest.mark.parametrize("text", ["version 3.11.7", "10.0.0.1", "v2", "12:30", "a/2/b"])
def test_versions_addresses_and_names_are_no_numbers(text: str) -> None:
    assert values.number(text) is None


@pytest.mark.parametrize("text", ["Infinity", "9" * 5000, "1e999999", "1/0", ""])
def test_an_odd_number_is_unread_and_no_error(text: str) -> None:
    assert not scored("number", text, "1").right


def test_equal_values_are_equal_however_they_are_spelled() -> None:
    assert scored("number", "381", "1").value == scored("number", "It is 381.0", "1").value
    code = "```python\ndef f():\n    return 1  # one\n```"
    assert values.same_code(values.program(code, "")) == values.same_code("def f():\n  return 1\n")


def test_code_is_a_whole_function_or_the_rest_of_one() -> None:
    prefix = "import math\ndef f(x):\n"
    assert values.program("```python\ndef f(x):\n    return x\n```", prefix).startswith("import math\n")
    assert values.program("    return x\n", prefix) == prefix + "    return x\n"


def test_tests_decide_on_code() -> None:
    async def both() -> list[scorers.Score]:
        sandbox = Sandbox(namespaces=False)
        question = Question("q", USER, tests="assert f() == 1")
        texts = ("```python\ndef f(): return 1\n```", "```python\ndef f(): return 2\n```", "```python\nexit(0)\n```")
        return [await scorers.score(question, "python", text, sandbox, None) for text in texts]

    right, wrong, early = asyncio.run(both())
    assert (right.right, wrong.right, early.right) == (True, False, False)
    assert "AssertionError" in wrong.note


def test_a_rubric_is_judged_by_a_model_and_an_odd_word_is_unread() -> None:
    async def scores() -> list[scorers.Score]:
        async def ask(messages: Any) -> str:
            text = messages[0]["content"]
            assert "be kind" in text
            return "Yes." if "dear" in text else "hm"

        question = Question("q", USER, rubric="be kind")
        return [await scorers.score(question, "rubric", text, None, ask) for text in ("dear you", "you")]

    kind, odd = asyncio.run(scores())
    assert (kind.right, kind.unread) == (True, False)
    assert (odd.right, odd.unread) == (False, True)


def test_values_that_differ_by_a_sign_are_two() -> None:
    same = [scored("own", f"<answer>{each}</answer>", "5", grade=lambda _: 1.0).value for each in ("5", " 5 ", "-5")]
    assert same[0] == same[1] != same[2]


def test_a_sets_own_rule_that_fails_leaves_the_answer_unread() -> None:
    def grade(_: str) -> float:
        raise ValueError("no board")

    score = scored("own", "<answer>x</answer>", "x", grade=grade)
    assert (score.right, score.unread) == (False, True)


@pytest.mark.parametrize(
    ("question", "name"),
    [
        (Question("q", USER, "3"), "number"),
        (Question("q", USER, "three"), "exact"),
        (Question("q", USER, '{"a": 1}'), "json"),
        (Question("q", USER, "A", choices=("x", "y")), "choice"),
        (Question("q", USER, tests="assert 1"), "python"),
        (Question("q", USER, rubric="kind"), "rubric"),
        (Question("q", USER, "1", grade=lambda _: 1.0), "own"),
    ],
)
def test_a_question_says_how_it_is_scored(question: Question, name: str) -> None:
    assert scorers.chosen_for(question, "auto") == name
    scorers.check([question], "auto")


@pytest.mark.parametrize(
    ("question", "name"),
    [
        (Question("q", USER), "exact"),
        (Question("q", USER, "many"), "number"),
        (Question("q", USER, "("), "regex"),
        (Question("q", USER, "x"), "python"),
        (Question("q", USER, "no json"), "json"),
    ],
)
def test_a_question_that_its_scorer_cannot_score_is_named(question: Question, name: str) -> None:
    with pytest.raises(ConfigError) as error:
        scorers.check([question], name)
    assert error.value.place == "q"
