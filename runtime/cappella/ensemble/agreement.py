"""Which answers say the same, once what does not count is taken away: case, spacing, the spelling of a number.

In doubt two answers differ: what looks like an address, a version, a code or a program is compared as it is written.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from cappella.ensemble.run import Answer
from cappella.ensemble.structured.json_value import value_of

_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_OPENING, _CLOSING = "([{\"'*_$€£¥", ")]}\"'*_.,;:!?%"
_PLAIN = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NUMBER = re.compile(r"(-?(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*))(\.\d+)?")


def normalise(answer: Answer) -> str:
    """A key that two answers share if they say the same: JSON by value, text by its words, numbers by value."""
    calls = [(call.name, _json(call.arguments) or call.arguments) for call in answer.tool_calls]
    value = as_object(answer)
    content = canonical(value) if value is not None else _words(answer.content)
    return json.dumps([content, calls], sort_keys=True)


def canonical(value: Any) -> str:
    """JSON with sorted keys, 1.0 the same as 1, and texts in one spelling; a number that is a text is one value only."""
    return json.dumps(_canonical(value), sort_keys=True)


def group_by_meaning(answers: Sequence[Answer]) -> list[list[Answer]]:
    """The answers that say the same together, the largest camp first, then by seat."""
    found: dict[str, list[Answer]] = {}
    for answer in answers:
        found.setdefault(normalise(answer), []).append(answer)
    return sorted(found.values(), key=len, reverse=True)


def are_equal(answers: Sequence[Answer]) -> bool:
    """Whether there are several answers, and all say the same."""
    return len(answers) > 1 and len({normalise(answer) for answer in answers}) == 1


def as_object(answer: Answer) -> Mapping[str, Any] | None:
    """The JSON object that an answer is, if it is one."""
    value = _json(answer.content)
    return value if isinstance(value, dict) else None


def most_common(values: Sequence[Any]) -> list[Any]:
    """The values that most hold: one, or several with as many votes; of equal ones the first spelling."""
    counts = Counter(canonical(value) for value in values)
    spelt = {canonical(value): value for value in reversed(values)}
    top = max(counts.values())
    return [spelt[key] for key, count in counts.items() if count == top]


def _json(text: str) -> Any:
    try:
        return value_of(text)
    except ValueError:
        return None


def _words(text: str, numbers: bool = True) -> str:
    """Prose in one spelling; code between backquotes stays as it is."""
    parts = _CODE.split(text.strip())
    parts[::2] = [_prose(part, numbers) for part in parts[::2]]
    return _without_end("".join(parts).strip())


def _prose(text: str, numbers: bool) -> str:
    """Each space in front and behind counts as one, since code may stand there."""
    return " ".join(_word(word, numbers) for word in re.split(r"\s+", text))


def _word(word: str, numbers: bool) -> str:
    """A word of letters without its case, a number that stands alone without its spelling; others as they are."""
    opened = word.lstrip(_OPENING)
    core = opened.rstrip(_CLOSING)
    before, behind = word[: len(word) - len(opened)], opened[len(core) :]
    if _PLAIN.fullmatch(core):
        core = core.casefold()
    elif numbers and (number := _NUMBER.fullmatch(core)):
        whole, fraction = number.groups("")
        # Zeros behind other digits count: 3.10 may be a version, and is another one than 3.1.
        core = whole.replace(",", "") + (fraction if fraction.strip(".0") else "")
    return before + core + behind


def _without_end(text: str) -> str:
    """Without the marks that end a sentence; behind a digit only the stop is one: 5! is another value than 5."""
    bare = text.rstrip(" \n.!?")
    return text.rstrip(" \n.") if bare[-1:].isdigit() else bare


def _canonical(value: Any) -> Any:
    match value:
        case bool() | None:
            return value
        case float() if value.is_integer():
            return int(value)
        case str():
            return _words(value, numbers=False)
        case list():
            return [_canonical(each) for each in value]
        case dict():
            return {key: _canonical(each) for key, each in value.items()}
    return value
