"""Scorers: whether an answer is right, and which value it gives, by which answers can be counted."""

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from cappella.errors import ConfigError
from cappella.evaluation.data import LETTERS, Question, optional
from cappella.extraction import values
from cappella.tools.sandbox import Sandbox
from cappella.types import Json

VERSION = 2
"""Of the rules below. Outcomes that were kept under another version are made anew."""

AUTO = "auto"
RIGHT_GRADE = 0.999

Ask = Callable[[Sequence[Json]], Awaitable[str]]
"""Asks the judge of a rubric for one word, `yes` or `no`."""


@dataclass(frozen=True, slots=True)
class Score:
    """The outcome of one answer. `value` is equal for answers that say the same, None where the answer gives no value.

    `unread`: the scorer found nothing to read in it. It counts as wrong, and is told. `lasting` is false where a busy machine
    may have made it wrong: then it is not kept.
    """

    right: bool
    value: str | None
    unread: bool = False
    note: str = ""
    lasting: bool = True


Read = Callable[[Question, str], str | None]


def _reads_words(_: Question, text: str) -> str | None:
    return values.words(text) or text.strip() or None


def _reads_number(_: Question, text: str) -> str | None:
    return values.number(text)


def _reads_choice(question: Question, text: str) -> str | None:
    return values.choice(text, question.choices, LETTERS[: len(question.choices)] or LETTERS)


def _reads_json(_: Question, text: str) -> str | None:
    return values.json_value(text)


def _reads_final_part(_: Question, text: str) -> str | None:
    return " ".join(values.final_part(text).casefold().split()) or None


VALUE_OF: Mapping[str, Read] = {
    "exact": _reads_words,
    "number": _reads_number,
    "choice": _reads_choice,
    "contains": _reads_words,
    "regex": _reads_words,
    "json": _reads_json,
    "math-verify": lambda _, text: values.final_part(text).replace(" ", "") or None,
    "python": lambda question, text: values.same_code(values.program(text, question.prefix)),
    "rubric": _reads_words,
    "own": _reads_final_part,
}
"""How each scorer reads the value of an answer. `own` is the rule of the question's own set."""

NAMES = tuple(name for name in VALUE_OF if name != "own")
FREE_TEXT = ("contains", "regex", "python", "rubric")
"""Scorers whose right answers rarely have one value: questions are contested where outcomes differ."""
NEEDS_NO_ANSWER = ("python", "rubric", "own")


def chosen_for(question: Question, wanted: str) -> str:
    """The scorer of a question: the one that was named, or else by what the question has."""
    if wanted != AUTO:
        return wanted
    if question.grade:
        return "own"
    if question.tests is not None:
        return "python"
    if question.choices:
        return "choice"
    if question.rubric is not None:
        return "rubric"
    answer = question.answer or ""
    if answer.lstrip()[:1] in ("{", "[") and values.json_value(answer) is not None:
        return "json"
    return "number" if re.fullmatch(r"\s*[-+]?[\d,]*\.?\d+\s*", answer) else "exact"


def check(questions: Sequence[Question], wanted: str) -> None:
    """Raises ConfigError for a question that its scorer cannot score, before anything is asked."""
    for question in questions:
        name = chosen_for(question, wanted)
        lacks = _lacks(question, name)
        if lacks:
            raise ConfigError(question.id, f"cannot be scored by {name}: {lacks}", f"Use another of {', '.join(NAMES)}")
    if any(chosen_for(question, wanted) == "math-verify" for question in questions):
        optional("math_verify", "math-verify")


def _lacks(question: Question, name: str) -> str:
    if name == "python":
        return "" if question.tests is not None else "it has no tests"
    if name in NEEDS_NO_ANSWER:
        return "" if question.rubric or question.answer or question.grade else "it has no rubric"
    if question.answer is None:
        return "it has no answer"
    if name == "regex":
        return _broken_pattern(question.answer)
    if name in ("number", "choice", "json") and VALUE_OF[name](question, question.answer) is None:
        return f"its answer {question.answer[:40]!r} is none"
    return ""


def _broken_pattern(pattern: str) -> str:
    try:
        re.compile(pattern)
    except re.error as error:
        return f"its answer is no pattern ({error})"
    return ""


async def score(question: Question, name: str, text: str, sandbox: Sandbox | None, ask: Ask | None) -> Score:
    """The outcome of an answer. The python scorer needs a sandbox, the rubric somebody to ask."""
    value = VALUE_OF[name](question, text)
    match name:
        case "python":
            return await _run(question, text, value, sandbox)
        case "rubric":
            return await _judged(question, text, value, ask)
        case "own" if question.grade:
            return _graded(question.grade, text, value)
    if value is None:
        return Score(False, None, unread=True)
    return Score(_RULES[name](question, text, value), value)


async def _run(question: Question, text: str, value: str | None, sandbox: Sandbox | None) -> Score:
    assert sandbox
    if not values.code(text).strip():
        return Score(False, None, unread=True)
    outcome = await sandbox.run(f"{values.program(text, question.prefix)}\n\n{question.tests}")
    return Score(outcome.passed, value, note=outcome.reason, lasting=not outcome.timed_out)


async def _judged(question: Question, text: str, value: str | None, ask: Ask | None) -> Score:
    assert ask
    if value is None:
        return Score(False, None, unread=True)
    parts = [("Rubric", question.rubric), ("Reference answer", question.answer), ("Answer to grade", text)]
    shown = "\n\n".join(f"{name}:\n{part}" for name, part in parts if part)
    asked = f"A question was:\n{question.messages[-1]['content']}\n\n{shown}"
    word = await ask(
        [{"role": "user", "content": f"{asked}\n\nDoes the answer to grade fulfil this? Reply with yes or no alone."}]
    )
    said = values.words(word).split()
    return Score(said[:1] == ["yes"], value, unread=said[:1] not in (["yes"], ["no"]), note=word[:80])


def _graded(grade: Callable[[str], float], text: str, value: str | None) -> Score:
    if value is None:
        return Score(False, None, unread=True)
    try:
        return Score(grade(values.final_part(text)) >= RIGHT_GRADE, value)
    except Exception as error:  # noqa: BLE001
        # The set's own rule, which was written for answers in its form.
        return Score(False, value, unread=True, note=f"{type(error).__name__}: {error}"[:200])


def _same_value(name: str) -> Callable[[Question, str, str], bool]:
    return lambda question, text, value: value == VALUE_OF[name](question, question.answer or "")


def _contains(question: Question, text: str, value: str) -> bool:
    return f"{values.words(question.answer or '')} " in f"{value} "


def _matches(question: Question, text: str, value: str) -> bool:
    return re.search(question.answer or "", text) is not None


def _verified(question: Question, text: str, value: str) -> bool:
    package = optional("math_verify", "math-verify")
    expected = question.answer or ""
    gold = package.parse(expected) or package.parse(f"${expected}$")
    return bool(package.verify(gold, package.parse(text)))


_RULES: Mapping[str, Callable[[Question, str, str], bool]] = {
    "exact": _same_value("exact"),
    "number": _same_value("number"),
    "choice": _same_value("choice"),
    "json": _same_value("json"),
    "contains": _contains,
    "regex": _matches,
    "math-verify": _verified,
}


def to_json(outcome: Score) -> str:
    return json.dumps([outcome.right, outcome.value, outcome.unread, outcome.note])


def from_json(text: str) -> Score:
    return Score(*json.loads(text))
