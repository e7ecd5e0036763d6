"""Finds where passages of different documents say the same thing with another value: a number, a date or a name.

It is read from the text alone: two sentences that are alike but for one short part, with a value in it on both sides.
What is said in other words is not found.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

from cappella.ensemble.passages import plain
from cappella.ensemble.sources import Source

MAX_FOUND = 3
MAX_SENTENCES = 100
"""Of a passage; and of all passages so many that begin alike."""
MAX_SENTENCE_CHARS = 240
MIN_ALIKE_WORDS = 3
"""At the beginning of both, of which two at least say what they are about."""
MIN_TELLING_WORDS = 2
MIN_TELLING_CHARS = 4
MAX_VALUE_WORDS = 4
MAX_WORDS_BEHIND = 3
"""A number that more words follow tells which thing is meant, and a name that any follow: neither is a value of it."""
ROOM_SHARE = 4
LINE = "[{one}] and [{other}] differ: \u201c{said}\u201d in [{one}], \u201c{otherwise}\u201d in [{other}]"
GIVE_BOTH = (
    "{pairs} differ. If the question is about that, say that the documents differ, and give both values, each with its"
    " handle."
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_WORD = re.compile(r"[^\W_]+(?:[-.,:/'\u2019][^\W_]+)*")
_VALUE = re.compile("v+w?")
_Said = tuple[Source, str, Sequence[str]]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """Two sources, and the sentences in them that differ."""

    one: Source
    other: Source
    said: str
    otherwise: str


def disagreements(sources: Sequence[Source], earlier: Sequence[Source] = ()) -> Sequence[Disagreement]:
    """The first few among these sources and between them and earlier ones, one for two sources."""
    new = {each.handle for each in sources}
    found: dict[tuple[str, str], Disagreement] = {}
    for (one, said, words), (other, otherwise, others) in _alike([*earlier, *sources]):
        pair = (one.handle, other.handle)
        if pair in found or new.isdisjoint(pair) or _document(one) == _document(other):
            continue
        if _differ(words, others):
            found[pair] = Disagreement(one, other, said, otherwise)
    return list(found.values())[:MAX_FOUND]


def lines(found: Sequence[Disagreement], room_bytes: int) -> Sequence[str]:
    """A line of data for each, as many as a part of the passages' room holds."""
    fitting: list[str] = []
    for each in found:
        said, otherwise = plain(each.said), plain(each.otherwise)
        line = LINE.format(one=each.one.handle, other=each.other.handle, said=said, otherwise=otherwise)
        if len("\n".join([*fitting, line]).encode()) <= room_bytes // ROOM_SHARE:
            fitting.append(line)
    return fitting


def notes(found: Sequence[Disagreement]) -> Sequence[str]:
    """What a reader of sources that differ is told to do; nothing where none do."""
    pairs = ", ".join(f"[{each.one.handle}] and [{each.other.handle}]" for each in found)
    return [GIVE_BOTH.format(pairs=pairs)] if pairs else []


def _alike(sources: Sequence[Source]) -> Iterator[tuple[_Said, _Said]]:
    """Pairs of sentences whose first words are the same."""
    by_beginning: dict[Sequence[str], list[_Said]] = {}
    for source in {each.handle: each for each in sources}.values():
        for sentence in _SENTENCE_END.split(source.passage.text)[:MAX_SENTENCES]:
            words = _WORD.findall(sentence[: MAX_SENTENCE_CHARS + 1])
            alike = by_beginning.setdefault(tuple(map(str.lower, words[:MIN_ALIKE_WORDS])), [])
            if len(sentence) <= MAX_SENTENCE_CHARS and len(words) > MIN_ALIKE_WORDS and len(alike) < MAX_SENTENCES:
                alike.append((source, sentence.strip(), words))
    for alike in by_beginning.values():
        yield from combinations(alike, 2)


def _document(source: Source) -> tuple[str, str]:
    return source.passage.documents, source.passage.path


def _differ(words: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two sentences have another value in one place, and are alike before and behind it."""
    shorter = min(len(words), len(others))
    before = _same(words, others)
    behind = min(_same(words[::-1], others[::-1]), shorter - before)
    value, other = words[before : len(words) - behind], others[before : len(others) - behind]
    telling = [word for word in words[1:before] if len(word) >= MIN_TELLING_CHARS or _is_value(word)]
    if before < MIN_ALIKE_WORDS or len(telling) < MIN_TELLING_WORDS or not _have_values(value, other):
        return False
    are_numbers = all(any(map(str.isdigit, " ".join(each))) for each in (value, other))
    return behind <= (MAX_WORDS_BEHIND if are_numbers else 0)


def _same(words: Sequence[str], others: Sequence[str]) -> int:
    """How many words are the same at the beginning."""
    pairs = zip(words, others, strict=False)
    return next(
        (at for at, (one, other) in enumerate(pairs) if one.lower() != other.lower()), min(len(words), len(others))
    )


def _have_values(*parts: Sequence[str]) -> bool:
    """Whether each is a value: numbers or names, and one word after them at most, such as a unit."""
    kinds = ["".join("v" if _is_value(word) else "w" for word in part) for part in parts]
    return all(len(part) <= MAX_VALUE_WORDS and _VALUE.fullmatch(part) for part in kinds)


def _is_value(word: str) -> bool:
    """Whether a word inside a sentence is a number or a name, as far as its letters tell."""
    return word[0].isupper() or any(map(str.isdigit, word))
