"""Breaks up what looks like the fences and notes of our prompts in texts of others, whatever it is written with.

A judge reads a whole prompt as one text. A mark or a note of ours inside an answer, a document or a tool's result would
look to it like our own, also in other letters, brackets or spaces: so each is spelled with zero-width spaces.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

BREAK = "\u200b"
NOTE_WORDS = 5
"""A note is known by its first words: fewer would stand in ordinary texts as well."""
MAX_HEAD_LETTERS = 40
"""Some scripts have no spaces between words."""
MAX_SIGNS = 4
"""Between two letters of a note, spaces among them."""

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


def _spelled(word: str) -> str:
    """A pattern of the word in any letters that look like its own."""
    return _BETWEEN_LETTERS.join(f"[{re.escape(''.join(_look_alikes(letter)))}]" for letter in word.lower())


def _look_alikes(letter: str) -> str:
    return letter + (_LOOK_ALIKES[letter] if letter in _LOOK_ALIKES else "".join(sorted(_all_alike(letter) - {letter})))


def _lines() -> re.Pattern[str]:
    mark = f"(?:{_spelled('answer')}|{_spelled('end')})"
    call, reasoning = _spelled("call"), _spelled("reasoning")
    lines = [
        rf"{_OPEN}{_GAP}{{0,8}}(?:{mark}|{call}){_GAP}{{1,8}}(?=\w)",
        # Not after a name, where it is an index in a program; after a line's end in JSON, it is not one.
        rf"(?:(?<![A-Za-z0-9_)\]])|(?<=\\[nrt])){_OPEN}{_GAP}{{0,8}}{mark}(?:[^\w,=+;]|_){{1,8}}[^\W_](?![^\W_])",
        rf"{_OPEN}{_GAP}{{0,8}}{reasoning}(?![^\W_])",
        rf"[<({{]{_GAP}{{0,8}}{mark}[\W_]{{1,8}}[^\W_][\W_]{{1,8}}(?=[0-9a-f]{{6}})",
    ]
    return re.compile("|".join(lines), re.IGNORECASE)


_LINES = _lines()
_LINES_HEADS = [head.translate(_SQUEEZED) for head in ("[answer", "[end", "[call", "[reasoning")]
_ENTITIES = ("&#", "&ls", "&lb")


@lru_cache(maxsize=4096)
def _look_like(letter: str) -> frozenset[str]:
    return frozenset(_look_alikes(letter))


@dataclass(frozen=True, slots=True)
class Head:
    """What a note is known by: the letters of its first `words`, and those letters squeezed, for a plain search."""

    words: int
    letters: str
    squeezed: str

    @classmethod
    def of(cls, note: str) -> "Head":
        words = re.findall(r"[^\W\d_]+", note.translate(_FOLDED))[:NOTE_WORDS]
        letters = "".join(words)[:MAX_HEAD_LETTERS]
        return cls(len(words), letters, letters.translate(_SQUEEZED))


def break_up(text: str, heads: Sequence[Head]) -> str:
    """The text with a BREAK between all characters of each imitation: of marks, of the lines of a reasoning or a tool call, and of notes.

    Ordinary text is returned as it is.
    """
    squeezed = text.translate(_SQUEEZED)
    letters = squeezed.replace("[", "")
    found = [head for head in heads if head.squeezed in letters]
    has_lines = any(each in text for each in _ENTITIES) or any(each in squeezed for each in _LINES_HEADS)
    if not found and not has_lines:
        return text
    seen = text if text.isascii() else text.translate(_FOLDED)
    spans = [match.span() for match in _LINES.finditer(seen)] if has_lines else []
    if found:
        places = [at for at, each in enumerate(text) if _SQUEEZED[ord(each)] not in (None, ord("["))]
        spans += [span for head in found for span in _notes_in(seen, letters, places, head)]
    parts, end = [], 0
    for start, stop in sorted(spans):
        parts += [text[end : max(start, end)], BREAK.join(text[max(start, end) : stop].replace(BREAK, ""))]
        end = max(end, stop)
    return "".join([*parts, text[end:]]) if spans else text


def _notes_in(seen: str, letters: str, places: Sequence[int], head: Head) -> Iterator[tuple[int, int]]:
    """Where the note's letters stand, or some that look like them, with few signs between. `places` are those of the `letters`.

    No pattern: there may be hundreds of notes, and each one's would take 10 ms to compile.
    """
    at = letters.find(head.squeezed)
    while at >= 0:
        own = places[at : at + len(head.letters)]
        is_near = all(after - before <= 1 + MAX_SIGNS for before, after in pairwise(own))
        if is_near and all(seen[i].lower() in _look_like(c) for i, c in zip(own, head.letters, strict=True)):
            yield own[0], own[-1] + 1
            at += len(own) - 1
        at = letters.find(head.squeezed, at + 1)
