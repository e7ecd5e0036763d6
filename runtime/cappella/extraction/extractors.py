"""The value that each of several answers to one question gives, by which they are counted: one table of extractors.

`auto` reads a value only where the question or the answers show that one is asked for; elsewhere the whole text counts.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import re2

from cappella.extraction import values
from cappella.extraction.spelling import lone_number, normal_text
from cappella.vocabulary import Extractor

READ_CHARACTERS = 20_000
"""Of a longer answer the end is read for a value. Where the whole text counts, all of it is."""
MAX_PATTERN_CHARACTERS = 1000
MAX_LINE_CHARACTERS = 400
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"

_OPTION = re.compile(r"^[ \t]{0,8}[(\[]?([A-Z])[)\].:][ \t]{1,8}(\S[^\n]{0,400})$", re.MULTILINE)
# In an answer; it may stand in a list, or in bold type, or beside the next.
_PART = re.compile(r"(?:^|[,;.]|\s/|\band)[ \t>*_#-]{0,8}[(\[]?([A-Z])[)\].:][*_]{0,3}[ \t]{1,8}\S", re.MULTILINE)
_SAYS_ANSWER = re.compile(
    r"^\W{0,8}(?:(?:so|thus|hence|therefore|my|the|final|correct|right)\b,?\s{1,4}){0,4}answer[*_\s]{0,4}(?:is\b|:|=)[*_\s]{0,4}(.+)$",
    re.IGNORECASE,
)
_ENDS_IN = re.compile(r"(?:=|≈|\bis|\bequals|\bmakes)\s{1,4}([^\s=]+)$|=([^\s=]+)$", re.IGNORECASE)
_FENCE = "```"


@dataclass(frozen=True, slots=True)
class Asked:
    """What a question asks for: `letters` and the texts of the `choices` that it lists, if it does."""

    letters: str = ""
    choices: Sequence[str] = ()

    @classmethod
    def by(cls, question: str) -> "Asked":
        """Read from the question's own text: lines that begin with `A)`, `B)` and so on, in order."""
        found: list[str] = []
        for letter, text in _OPTION.findall(question[-READ_CHARACTERS:]):
            if letter == "A":
                found = []
            if letter == LETTERS[len(found) : len(found) + 1]:
                found.append(text.strip())
        return cls(LETTERS[: len(found)], found) if len(found) > 1 else cls()


@dataclass(frozen=True, slots=True)
class Reading:
    """The answers' values by name, None where there is none, and the extractor that found them."""

    extractor: Extractor
    values: Mapping[str, str | None] = field(default_factory=dict)


def read(texts: Mapping[str, str], wanted: Extractor, asked: Asked, pattern: str | None = None) -> Reading:
    """The value of each text. Two that are equal say the same."""
    if wanted == "auto":
        return _read_by_sight(texts, asked)
    return Reading(wanted, {name: value_of(text, wanted, asked, pattern) for name, text in texts.items()})


def value_of(text: str, extractor: Extractor, asked: Asked, pattern: str | None = None) -> str | None:
    """The value of one text by an extractor that was named."""
    if extractor == "choice":
        return values.choice(_end(text), asked.choices, asked.letters or LETTERS)
    if extractor == "regex":
        return _by_pattern(text, pattern or "")
    return _READ[extractor](text)


def usable_pattern(pattern: str) -> str:
    """The same pattern. Raises ValueError for one that cannot be used."""
    try:
        re2.compile(pattern)
        # One that is usable alone may not be beside others: `\Q(` takes literally what follows.
        re2.compile(_up_to_last(pattern))
    except re2.error as error:
        raise ValueError(f"it is no pattern ({error})") from error
    return pattern


def _read_by_sight(texts: Mapping[str, str], asked: Asked) -> Reading:
    """By the first extractor that suits the question and most of the answers. What has no such value counts as a text."""
    if any(_has_parts(text) for text in texts.values()):
        return Reading("text", {name: normal_text(text) for name, text in texts.items()})
    for extractor, read_one in _sights(list(texts.values()), asked):
        found = {name: read_one(text) for name, text in texts.items()}
        if sum(value is not None for value in found.values()) > len(texts) / 2:
            return Reading(extractor, {name: found[name] or _own_words(text) for name, text in texts.items()})
    return Reading("text", {name: _stated(text) for name, text in texts.items()})


def _sights(texts: Sequence[str], asked: Asked) -> list[tuple[Extractor, Callable[[str], str | None]]]:
    """The extractors that may suit, each with how it reads one text."""
    if asked.letters:
        return [("choice", lambda text: values.choice(_end(text), asked.choices, asked.letters))]
    if any(_FENCE in text for text in texts):
        return [("code", _only_code)]
    # One that is a number alone shows that the question asks for one.
    if any(_lone(text) or _marked_number(text) for text in texts):
        return [("number", _stated_number)]
    return []


def _has_parts(text: str) -> bool:
    """Whether it answers several parts of a question, or goes through its choices: no one value says what it says."""
    return len(set(_PART.findall(_end(text)))) > 1


def _end(text: str) -> str:
    return text[-READ_CHARACTERS:]


def _own_words(text: str) -> str:
    """A key for a text without a value, which no value of another has."""
    return f"text: {normal_text(text)}"


def _only_code(text: str) -> str | None:
    """The program, if there is one alone."""
    return values.same_code(values.code(text)) if text.count(_FENCE) == 2 else None


def _stated(text: str) -> str:
    """What it marks as its answer, or else all of it."""
    return normal_text(said if (said := _marked(text)) is not None else text)


def _marked(text: str) -> str | None:
    """What stands in `<answer>` or `\\boxed{}`, or after "the answer is" on the last line."""
    text = _end(text)
    if (inside := values.tagged(text)) is not None or (inside := values.boxed(text)) is not None:
        return inside
    last = _SAYS_ANSWER.match(_last_line(text) or "")
    return last[1] if last else None


def _marked_number(text: str) -> str | None:
    said = _marked(text)
    return None if said is None else lone_number(said)


def _stated_number(text: str) -> str | None:
    """The number that it marks, or is, or ends in, or the only one of its last line, with the words beside it."""
    if (said := _marked(text)) is not None:
        return lone_number(said) or _only_number(said)
    last = (_last_line(text) or "")[-MAX_LINE_CHARACTERS:]
    ending = _ENDS_IN.search(last.rstrip(" .!*_"))
    ended = lone_number(ending[1] or ending[2]) if ending else None
    return _lone(text) or ended or _only_number(last)


def _lone(text: str) -> str | None:
    return lone_number(text) if len(text) <= MAX_LINE_CHARACTERS else None


def _only_number(line: str) -> str | None:
    """A line with one number: 5 km are not 5 miles, so that its other words count as well."""
    found = {number for word in line.split() if (number := lone_number(word)) is not None}
    has_other_digits = any(lone_number(word) is None for word in line.split() if any(each.isdigit() for each in word))
    return _words(line) if len(found) == 1 and not has_other_digits else None


def _words(line: str) -> str:
    """Its words and numbers in one spelling, without the marks of bold type."""
    return normal_text(" ".join(lone_number(word) or word for word in line.replace("*", "").split()))


def _last_line(text: str) -> str | None:
    line = _end(text).strip().rpartition("\n")[2].strip()
    return line or None


def _boxed(text: str) -> str | None:
    inside = values.boxed(_end(text))
    return None if inside is None else values.lone_value(inside) or normal_text(inside).replace(" ", "")


def _by_pattern(text: str, pattern: str) -> str | None:
    """In one pass, however often it matches: every match is an object, and an answer may have one per character."""
    text = _end(text)
    at = re2.compile(_up_to_last(pattern)).match(text).start(1)
    if at < 0:
        return None
    last = re2.compile(pattern).match(text, at)
    return normal_text(last[1] if last.groups() and last[1] is not None else last[0]) or None


def _up_to_last(pattern: str) -> str:
    """A pattern that matches any text, with the last match of the given one as its first group."""
    return f"(?:(?s:.*?)({pattern}))*"


_READ: Mapping[Extractor, Callable[[str], str | None]] = {
    "number": lambda text: values.number(_end(text)),
    "boxed": _boxed,
    "json": values.json_value,
    "code": lambda text: values.same_code(values.code(text)) or normal_text(values.code(text)) or None,
    "last_line": lambda text: normal_text(line) if (line := _last_line(text)) else None,
    "text": lambda text: normal_text(text) or None,
}
