"""Texts and JSON values in one spelling: case, spacing, final punctuation and the spelling of numbers make no difference.

In doubt two texts differ: addresses, versions, codes and programs are compared verbatim.
"""

import json
import re
from typing import Any

_CODE = re.compile(r"(```.*?```|`[^`\n]+`)", re.DOTALL)
_MARKS, _CURRENCIES = "([{\"'*_", "$€£¥"
_OPENING, _CLOSING = _MARKS + _CURRENCIES, ")]}\"'*_.,;:!?%"
_LETTERS = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_NUMBER = re.compile(r"(-?(?:[1-9]\d{0,2}(?:,\d{3})+|0|[1-9]\d*))(\.\d+)?")


def canonical(value: Any) -> str:
    """A JSON value as a key: keys sorted, 1.0 the same as 1, strings normalised except for the numbers in them."""
    return json.dumps(_canonical(value), sort_keys=True)


def lone_number(text: str) -> str | None:
    """The number that a text is and nothing else but a currency, in one spelling; None for versions, codes, and all else."""
    core = text.strip().lstrip(_MARKS).rstrip(_CLOSING.replace("%", "").replace("!", ""))
    return _normal_word(core, numbers=True) if _NUMBER.fullmatch(core[core[:1] in _CURRENCIES :]) else None


def normal_text(text: str, numbers: bool = True) -> str:
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
            return normal_text(value, numbers=False)
        case list():
            return [_canonical(item) for item in value]
        case dict():
            return {key: _canonical(item) for key, item in value.items()}
    return value
