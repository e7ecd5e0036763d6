"""Cuts the blocks of a file into passages of some 250 words, at borders of paragraphs, with a small overlap."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from cappella.tools.documents.parsing import Block, Parsed, Unit

AIM_WORDS = 250
MAX_WORDS = 300
MIN_SECTION_WORDS = 60
"""A heading begins a new passage once the one before has so many words."""
MAX_OVERLAP_WORDS = 50
MAX_MEAN_CHARS = 12
MAX_WORD_CHARS = 200
"""Longer ones are cut: what has no spaces is no reason for a passage without end."""
_CJK = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff]")


@dataclass(frozen=True, slots=True)
class Cut:
    """A passage of a file; its first `repeated` characters stand in the one before, too."""

    unit: Unit
    first: int
    last: int
    heading: str
    text: str
    repeated: int

    @property
    def place(self) -> str:
        return place_of(self.unit, self.first, self.last)


def place_of(unit: Unit, first: int, last: int) -> str:
    """Such as `page 3` or `lines 10-14`."""
    return f"{unit} {first}" if first == last else f"{unit}s {first}-{last}"


def words_in(text: str) -> int:
    """The words; of scripts without spaces, two characters are one, and what has few spaces counts by its length."""
    return max(len(text.split()) + len(_CJK.findall(text)) // 2, len(text) // MAX_MEAN_CHARS)


def cut(parsed: Parsed) -> Iterator[Cut]:
    """The passages of a file, in order. None goes over the border of a page."""
    held: list[Block] = []
    overlap = 0
    for block in (small for large in parsed.blocks for small in _small(large, parsed.unit)):
        if len(held) > overlap and _ends(held, block, parsed.unit):
            yield _joined(parsed.unit, held, overlap)
            held, overlap = _carried(held, block, parsed.unit)
        held.append(block)
    if len(held) > overlap:
        yield _joined(parsed.unit, held, overlap)


def _ends(held: Sequence[Block], block: Block, unit: Unit) -> bool:
    """Whether the passage of the blocks held ends before this one."""
    if unit == "page" and held[-1].last != block.first:
        return True
    words = sum(words_in(each.text) for each in held)
    if block.headings != held[-1].headings and words >= MIN_SECTION_WORDS:
        return True
    return words >= AIM_WORDS or words + words_in(block.text) > MAX_WORDS


def _carried(held: Sequence[Block], block: Block, unit: Unit) -> tuple[list[Block], int]:
    """What the next passage repeats: the last block, if it is short and of the same page and section."""
    last = held[-1]
    is_near = block.headings == last.headings and (unit != "page" or block.first == last.last)
    return ([last], 1) if is_near and len(held) > 1 and words_in(last.text) <= MAX_OVERLAP_WORDS else ([], 0)


def _joined(unit: Unit, blocks: Sequence[Block], overlap: int) -> Cut:
    text, repeated = blocks[0].text, 0
    for number, (before, block) in enumerate(pairwise(blocks), start=1):
        text += _between(unit, before, block)
        repeated = len(text) if number == overlap else repeated
        text += block.text
    heading = " > ".join(next((block.headings for block in blocks if block.headings), ()))
    return Cut(unit, blocks[0].first, blocks[-1].last, heading, text, repeated)


def _between(unit: Unit, before: Block, block: Block) -> str:
    """What stood between the two, which may be parts of one line, or lines of one paragraph."""
    if unit == "line" and before.last >= block.first:
        return " "
    return "\n\n" if unit == "paragraph" or (unit == "line" and before.last + 1 < block.first) else "\n"


def _small(block: Block, unit: Unit) -> Iterator[Block]:
    """The block in parts that fit: by its paragraphs, lines, sentences, else words. Parts of a page are its paragraphs."""
    if unit != "page" and words_in(block.text) <= AIM_WORDS:
        yield block
        return
    lines = block.text.split("\n")
    has_lines = unit == "line" and len(lines) == block.last - block.first + 1
    for number, line in enumerate(lines):
        at = block.first + number if has_lines else block.first
        for part in _fitting(line):
            yield Block(part, at, at if has_lines else block.last, block.headings)


def _fitting(line: str) -> Iterator[str]:
    if line.strip() and words_in(line) <= AIM_WORDS:
        yield line
        return
    held: list[str] = []
    words = 0
    for piece in (part for word in re.findall(r"\S+\s*", line) for part in _of_length(word)):
        size = max(1, words_in(piece))
        if held and words + size > AIM_WORDS:
            yield "".join(held).rstrip()
            held, words = [], 0
        held.append(piece)
        words += size
    if held:
        yield "".join(held).rstrip()


def _of_length(word: str) -> Iterator[str]:
    yield from (word[at : at + MAX_WORD_CHARS] for at in range(0, len(word), MAX_WORD_CHARS))
