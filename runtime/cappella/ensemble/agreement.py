"""Compares answers by meaning: case, spacing, final punctuation and the spelling of numbers make no difference.

In doubt two answers differ: addresses, versions, codes and programs are compared verbatim.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cappella.ensemble.run import Answer
from cappella.ensemble.structured.json_value import parse_json

_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_OPENING, _CLOSING = "([{\"'*_$€£¥", ")]}\"'*_.,;:!?%"
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NUMBER = re.compile(r"(-?(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*))(\.\d+)?")


def normalise(answer: Answer) -> str:
    """A key that two answers share if they say the same: JSON and numbers by value, text by its words."""
    calls = [(call.name, _json(call.arguments) or call.arguments) for call in answer.tool_calls]
    value = as_object(answer)
    content = canonical(value) if value is not None else _normal_text(answer.content)
    return json.dumps([content, calls], sort_keys=True)


def canonical(value: Any) -> str:
    """A JSON value as a key: keys sorted, 1.0 the same as 1, strings normalised except for the numbers in them."""
    return json.dumps(_canonical(value), sort_keys=True)


def group_by_meaning(answers: Sequence[Answer]) -> list[list[Answer]]:
    """Groups of answers that say the same, the largest first, then by seat."""
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(normalise(answer), []).append(answer)
    return sorted(groups.values(), key=len, reverse=True)


def are_equal(answers: Sequence[Answer]) -> bool:
    """Whether there are at least two answers, and all say the same."""
    return len(answers) > 1 and len({normalise(answer) for answer in answers}) == 1


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


def _normal_text(text: str, numbers: bool = True) -> str:
    """Prose in one spelling, code between backquotes verbatim; `numbers` also normalises numbers."""
    parts = _CODE.split(text.strip())
    parts[::2] = [_normal_prose(part, numbers) for part in parts[::2]]
    return _without_end_mark("".join(parts).strip())


def _normal_prose(text: str, numbers: bool) -> str:
    """Each run of spaces as one, also at both ends, where code may follow."""
    return " ".join(_normal_word(word, numbers) for word in re.split(r"\s+", text))


def _normal_word(word: str, numbers: bool) -> str:
    """A word of letters in lower case, a number alone in one spelling, anything else verbatim."""
    unopened = word.lstrip(_OPENING)
    core = unopened.rstrip(_CLOSING)
    prefix, suffix = word[: len(word) - len(unopened)], unopened[len(core) :]
    if _LETTERS.fullmatch(core):
        core = core.casefold()
    elif numbers and (number := _NUMBER.fullmatch(core)):
        integer, fraction = number.groups("")
        # Trailing zeros count unless the fraction is all zeros: 3.10 may be a version, and not the same as 3.1.
        core = integer.replace(",", "") + (fraction if fraction.strip(".0") else "")
    return prefix + core + suffix


def _without_end_mark(text: str) -> str:
    """Without the marks that end a sentence; after a digit only the full stop, since 5! is not 5."""
    bare = text.rstrip(" \n.!?")
    return text.rstrip(" \n.") if bare[-1:].isdigit() else bare


def _canonical(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case float() if value.is_integer():
            return int(value)
        case str():
            return _normal_text(value, numbers=False)
        case list():
            return [_canonical(item) for item in value]
        case dict():
            return {key: _canonical(item) for key, item in value.items()}
    return value
