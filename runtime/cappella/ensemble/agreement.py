"""Compares answers by what they say: by the values that an extractor reads in them, or by their texts in one spelling.

In doubt two answers differ: addresses, versions, codes and programs are compared verbatim.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cappella.ensemble.run import Answer
from cappella.ensemble.structured.json_value import parse_json
from cappella.extraction.extractors import Asked, Reading, read
from cappella.extraction.spelling import canonical, normal_text
from cappella.threads import off_loop_if_large
from cappella.vocabulary import Extractor

READ_WORK = 20
"""How much longer it takes to read a character for a value, or to compare its word, than to check and write one."""


def normalise(answer: Answer) -> str:
    """A key that two answers share if they say the same: JSON and numbers by value, text by its words."""
    calls = [(call.name, _json(call.arguments) or call.arguments) for call in answer.tool_calls]
    value = as_object(answer)
    content = canonical(value) if value is not None else normal_text(answer.content)
    return json.dumps([content, calls], sort_keys=True)


def reading(
    answers: Sequence[Answer], extractor: Extractor = "auto", question: str = "", pattern: str | None = None
) -> Reading:
    """The value of each answer, None for one that gives none. Calls of tools and JSON objects count as a whole."""
    if extractor == "auto" and any(answer.tool_calls or as_object(answer) is not None for answer in answers):
        return Reading("json", {answer.name: normalise(answer) for answer in answers})
    texts = {answer.name: answer.content for answer in answers}
    return read(texts, extractor, Asked.by(question), pattern)


async def reading_of(answers: Sequence[Answer], extractor: Extractor, question: str, pattern: str | None) -> Reading:
    """The same, of answers of any length: on a thread for long ones."""
    return await off_loop_if_large(work(answers, question), reading, answers, extractor, question, pattern)


def work(answers: Sequence[Answer], question: str = "") -> int:
    """How much there is to do, in the characters of `off_loop_if_large`."""
    return READ_WORK * (len(question) + sum(len(answer.content) for answer in answers))


def groups(answers: Sequence[Answer], read: Reading) -> list[list[Answer]]:
    """Groups of answers with the same value, the largest first, then by seat. Those without a value are left out."""
    by_value: dict[str, list[Answer]] = {}
    for answer in answers:
        if (value := read.values.get(answer.name)) is not None:
            by_value.setdefault(value, []).append(answer)
    return sorted(by_value.values(), key=len, reverse=True)


def are_equal(answers: Sequence[Answer], read: Reading) -> bool:
    """Whether there are at least two answers, and all have the same value."""
    found = {read.values.get(answer.name) for answer in answers}
    return len(answers) > 1 and len(found) == 1 and None not in found


def as_object(answer: Answer) -> Mapping[str, Any] | None:
    """The answer parsed as a JSON object; None if it is none."""
    value = _json(answer.content)
    return value if isinstance(value, dict) else None


def most_common(values: Sequence[Any]) -> list[Any]:
    """The most frequent values: one, or several in a tie, each in its first spelling."""
    counts = Counter(canonical(value) for value in values)
    first_spelling = {canonical(value): value for value in reversed(values)}
    top = max(counts.values())
    return [first_spelling[key] for key, count in counts.items() if count == top]


def _json(text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError:
        return None
