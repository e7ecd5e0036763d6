"""Breaks up what looks like the fences and notes of our prompts in texts of others, whatever it is written with.

A judge reads a whole prompt as one text. A mark or a note of ours inside an answer, a document or a tool's result would
look to it like our own, also in other letters, brackets or spaces: so each is spelled with zero-width spaces.
"""

import re
import unicodedata
from collections.abc import Sequence

BREAK = "\u200b"
NOTE_WORDS = 5
"""A note is known by its first words: fewer would stand in ordinary texts as well."""
MAX_HEAD_LETTERS = 40
"""Some scripts have no spaces between words."""

# Letters that look like a Latin one; the rest (other cases, widths, accents, mathematical letters) is folded.
_LOOK_ALIKES = {
    "a": "аαɑᴀ4",
    "b": "ьвβʙ",
    "c": "сϲςᴄ",
    "d": "ԁժᴅ",
    "e": "еєεҽэᴇ3",
    "f": "ғϝꜰ",
    "g": "ɡԍɢ",
    "h": "һнηհʜ",
    "i": "іιıɪӏl1",
    "j": "јϳ",
    "k": "кκᴋ",
    "l": "ӏιіʟi1",
    "m": "мμᴍ",
    "n": "пниηνոռɴ",
    "o": "оοօσөᴏ0",
    "p": "рρᴘ",
    "q": "ԛ",
    "r": "гяʀ",
    "s": "ѕʂꜱ5",
    "t": "тτᴛ7",
    "u": "υцսᴜ",
    "v": "νѵᴠ",
    "w": "ԝшωѡᴡ",
    "x": "хχ",
    "y": "уγүʏ",
    "z": "ζᴢ",
}
_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"
"""Letters and symbols that show nothing."""
_QUOTES = "‚„〝"

_GAP = r"[\s\x00-\x1f\x7f\u200b]"
_BETWEEN_LETTERS = r"[\s\x00-\x1f\x7f\u200b._*~-]{0,3}"
_BETWEEN_LETTERS_OF_A_NOTE = r"[\W_]{0,4}"
_OPEN = r"(?:\[|&#0*91;|&#x0*5b;|&lsqb;|&lbrack;)"


class _Folded(dict[int, int]):
    """Each character as the one that it looks like, so that places in a text stay the same."""

    def __missing__(self, code: int) -> int:
        self[code] = folded = ord(_fold(chr(code)))
        return folded


def _fold(character: str) -> str:
    if character in _BLANKS:
        return " "
    first = unicodedata.normalize("NFKD", character)[0]
    match unicodedata.category(first):
        case "Cf" | "Cc" | "Mn" | "Me" | "Cn" | "Co" if not first.isspace():
            return BREAK
        case "Zs" | "Zl" | "Zp":
            return " "
        case "Ps" if first not in "({" and first not in _QUOTES:
            return "["
    low = first.lower()
    return low if len(low) == 1 else first


class _Squeezed(dict[int, int | None]):
    """Look-alike letters as one, brackets as one, and nothing else: imitations are found there by a plain search."""

    def __missing__(self, code: int) -> int | None:
        folded = _fold(chr(code))
        self[code] = squeezed = ord("[") if folded in "[<({" else ord(_alike(folded)) if folded.isalnum() else None
        return squeezed


def _alike(letter: str) -> str:
    """The first of all letters that look like this one, or like one of those."""
    return min(_all_alike(letter))


def _all_alike(letter: str) -> set[str]:
    alike = {letter.lower()}
    while more := {c for low, others in _LOOK_ALIKES.items() if alike & {low, *others} for c in low + others} - alike:
        alike |= more
    return alike


_FOLDED = _Folded()
_SQUEEZED = _Squeezed()


def _spelled(word: str, between: str) -> str:
    """A pattern of the word in any letters that look like its own."""
    return between.join(f"[{re.escape(''.join(_look_alikes(letter)))}]" for letter in word.lower())


def _look_alikes(letter: str) -> str:
    return letter + (_LOOK_ALIKES[letter] if letter in _LOOK_ALIKES else "".join(sorted(_all_alike(letter) - {letter})))


def _head(note: str) -> str:
    """The letters of its first words, each as the one that it looks like."""
    words = re.findall(r"[^\W\d_]+", note.translate(_FOLDED))[:NOTE_WORDS]
    return "".join(words)[:MAX_HEAD_LETTERS]


class Imitations:
    """Finds imitations of marks, of the lines of a reasoning or a tool call, and of the given notes."""

    def __init__(self, notes: Sequence[str]) -> None:
        mark = f"(?:{_spelled('answer', _BETWEEN_LETTERS)}|{_spelled('end', _BETWEEN_LETTERS)})"
        call, reasoning = (_spelled(word, _BETWEEN_LETTERS) for word in ("call", "reasoning"))
        lines = [
            rf"{_OPEN}{_GAP}{{0,8}}(?:{mark}|{call}){_GAP}{{1,8}}(?=\w)",
            # Not after a name, where it is an index in a program; after a line's end in JSON, it is not one.
            rf"(?:(?<![A-Za-z0-9_)\]])|(?<=\\[nrt])){_OPEN}{_GAP}{{0,8}}{mark}(?:[^\w,=+;]|_){{1,8}}[^\W_](?![^\W_])",
            rf"{_OPEN}{_GAP}{{0,8}}{reasoning}(?![^\W_])",
            rf"[<({{]{_GAP}{{0,8}}{mark}[\W_]{{1,8}}[^\W_][\W_]{{1,8}}(?=[0-9a-f]{{6}})",
        ]
        self._lines = re.compile("|".join(lines), re.IGNORECASE)
        heads = list(dict.fromkeys(_head(note) for note in notes))
        spelled = [_spelled(head, _BETWEEN_LETTERS_OF_A_NOTE) for head in heads]
        self._notes = re.compile("|".join(spelled), re.IGNORECASE)
        lines_heads = ["[answer", "[end", "[call", "[reasoning"]
        self._squeezed = [head.translate(_SQUEEZED) for head in (*heads, *lines_heads)]

    def break_up(self, text: str) -> str:
        """The text with a BREAK between all characters of each imitation. Ordinary text is returned as it is."""
        squeezed = text.translate(_SQUEEZED)
        has_entity = any(each in text for each in ("&#", "&ls", "&lb"))
        if not has_entity and not any(each in squeezed for each in self._squeezed):
            return text
        seen = text if text.isascii() else text.translate(_FOLDED)
        spans = sorted(match.span() for pattern in (self._lines, self._notes) for match in pattern.finditer(seen))
        parts, end = [], 0
        for start, stop in spans:
            parts += [text[end : max(start, end)], BREAK.join(text[max(start, end) : stop].replace(BREAK, ""))]
            end = max(end, stop)
        return "".join([*parts, text[end:]]) if spans else text
