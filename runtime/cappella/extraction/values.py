"""Reads one value out of an answer in prose: a number, a letter, JSON, code, words. None where there is none.

Answers may be hostile: no pattern takes more than a few passes over a text.
"""

import ast
import hashlib
import json
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from fractions import Fraction
from typing import Any

_MARKED = re.compile(r"(?:answer[*_\s]*(?:is\b|:|=)|####)[ \t]*[*$\s]*([^\n]+)", re.IGNORECASE)
_TAG, _END_TAG = "<answer>", "</answer>"
_FENCE = re.compile(r"```[ \t]{0,8}([\w+-]{0,40})[^\n]{0,200}\n(.*?)(?:```|\Z)", re.DOTALL)
# No part of a version, an address, an identifier or a date.
_NUMBER = re.compile(
    r"(?<![\w.,/:-])[-+−]?[$€£]?(\d{1,3}(?:,\d{3})+|\d+)?(\.\d+)?(/\d+)?(?:[eE][-+]?\d{1,3})?(?![\w/:]|[.,]\d|-\d)"
)
_LONE_LETTER = re.compile(
    r"^[ \t\r*(\[\"'$]*(?:\\text\w{0,8}\{)?([A-Z])[ \t\r*)\].:\"'$}]*$", re.MULTILINE | re.IGNORECASE
)
_FIRST_LETTER = re.compile(r"^[\s*(\[]*([A-Z](?=[.:)\]])|[a-z](?=[)\]]))")
# The letter in upper case alone: "a" is an article.
_NAMED_LETTER = re.compile(
    r"(?i:answer|option|choice)[*_\s]{0,8}(?i:is\b|(?:would|must|should) be\b|:|=)?\s{0,8}[*(\[\"'$]{0,8}([A-Z])\b(?!['’])"
)
MAX_DIGITS = 400
MAX_PROGRAM_CHARACTERS = 20_000


def final_part(text: str) -> str:
    """What an answer says in the end: its `<answer>`, its `\\boxed{}`, what follows "answer is", or its last line."""
    if (inside := tagged(text)) is not None:
        return inside
    if (inside := boxed(text)) is not None:
        return inside
    if marked := _MARKED.findall(text):
        return str(marked[-1]).strip(" *$.")
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""


def tagged(text: str) -> str | None:
    """What the last `<answer>` that ends holds."""
    end = text.rfind(_END_TAG)
    start = text.rfind(_TAG, 0, max(0, end))
    return None if start < 0 else text[start + len(_TAG) : end].strip()


def boxed(text: str) -> str | None:
    """What the last `\\boxed{}` holds, with its inner braces."""
    start = text.rfind("\\boxed{")
    if start < 0:
        return None
    depth = 0
    for at in range(start + len("\\boxed"), len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return text[start + len("\\boxed{") : at]
    return None


def number(text: str) -> str | None:
    """The number in the final part, or else the last one anywhere, in one spelling: a fraction in lowest terms."""
    for part in (final_part(text), text):
        if found := [value for match in _NUMBER.finditer(part) if (value := _exact(match[0])) is not None]:
            return str(found[-1])
    return None


def lone_value(text: str) -> str | None:
    """The number that a text is and nothing else, by its value: 0.50 is 1/2. One of a currency is more."""
    bare = text.strip(" $*")
    match = None if any(sign in bare for sign in "€£¥") else _NUMBER.fullmatch(bare)
    return str(value) if match and (value := _exact(bare)) is not None else None


def _exact(text: str) -> Fraction | None:
    bare = re.sub(r"[,$€£+]", "", text).replace("−", "-")
    if not any(each.isdigit() for each in bare) or len(bare) > MAX_DIGITS:
        return None
    try:
        return Fraction(bare) if "/" in bare else Fraction(Decimal(bare))
    except (ValueError, InvalidOperation, ZeroDivisionError, OverflowError):
        return None


def choice(text: str, choices: Sequence[str], letters: str) -> str | None:
    """The letter that an answer gives, or that of the one choice whose words its final part has.

    Alone on the last line; else in the final part; else alone on a line, or named as the answer, the last of these.
    """
    final, last_line = final_part(text), text.strip().rpartition("\n")[2].strip()
    is_marked = final != last_line
    named = f"answer: {final}" if is_marked else final
    places = (
        (_LONE_LETTER, last_line, -1),
        (_LONE_LETTER, final, -1),
        (_FIRST_LETTER, final, 0),
        (_NAMED_LETTER, named, 0 if is_marked else -1),
        (_LONE_LETTER, text, -1),
        (_NAMED_LETTER, text, -1),
    )
    for pattern, part, which in places:
        if found := [letter.upper() for letter in pattern.findall(part) if letter.upper() in letters]:
            return str(found[which])
    return _by_words(final, choices, letters)


def _by_words(final: str, choices: Sequence[str], letters: str) -> str | None:
    said = [
        letter
        for letter, each in zip(letters, choices, strict=False)
        if words(each) and f"{words(each)} " in f"{words(final)} "
    ]
    return said[0] if len(said) == 1 else None


def json_value(text: str) -> str | None:
    """The last JSON value in an answer, in one spelling: of a fenced block, or the whole text, or from its first bracket."""
    blocks = [block for language, block in _FENCE.findall(text) if language.lower() in ("", "json")]
    starts = [at for at in (text.find("{"), text.find("[")) if at >= 0]
    for part in (*reversed(blocks), text, *(text[at:] for at in sorted(starts))):
        try:
            value, _ = json.JSONDecoder().raw_decode(part.strip())
        except (ValueError, RecursionError):
            continue
        return json.dumps(_canonical(value), sort_keys=True, ensure_ascii=False)
    return None


def _canonical(value: Any) -> Any:
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_canonical(each) for each in value]
        case dict():
            return {key: _canonical(each) for key, each in value.items()}
    return value


def words(text: str) -> str:
    """The words and numbers of a text in lower case, each with one space before it, and no punctuation."""
    return "".join(f" {word}" for word in re.findall(r"(?<!\w)-?\d+(?:\.\d+)?(?!\w)|[\w']+", text.casefold()))


def code(text: str) -> str:
    """The longest Python block of an answer, or the whole answer."""
    blocks = [block for language, block in _FENCE.findall(text) if language.lower() in ("", "python", "py", "python3")]
    return max(blocks, key=len) if blocks else text


def program(text: str, prefix: str) -> str:
    """An answer's code as a program: on its own if it compiles and defines what the prefix names, else as its end."""
    found = code(text)
    names = re.findall(r"^def (\w+)", prefix, re.MULTILINE)
    if not prefix:
        return found
    if names and re.search(rf"^def {names[-1]}\b", found, re.MULTILINE):
        # What stands before the function, such as imports and helpers, may be missing from the answer.
        return f"{prefix.partition(f'def {names[-1]}')[0]}\n{found}"
    return prefix + found


def same_code(text: str) -> str | None:
    """A hash of code without its comments and layout; None if it is no Python."""
    if len(text) > MAX_PROGRAM_CHARACTERS or not text.strip():
        return None
    try:
        return hashlib.sha256(ast.dump(ast.parse(text)).encode()).hexdigest()[:16]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
