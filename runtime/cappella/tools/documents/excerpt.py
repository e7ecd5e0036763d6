"""The part of a file around a place, without what its passages repeat."""

from collections.abc import Sequence
from dataclasses import replace

from cappella.tools.documents.index_rows import StoredPassage

MAX_READ_CHARS = 12_000


def excerpt(
    passages: Sequence[StoredPassage], place: tuple[int, int] | None, is_cut: bool = False
) -> tuple[Sequence[StoredPassage], str]:
    """The passages at the place with their neighbours, or from the beginning, and a sentence on where the file goes on.

    Of a place that the file does not have, none, and what it has. Of one that `is_cut`, the index has not all text.
    """
    at = _at(passages, place)
    if not at:
        first, last = passages[0], passages[-1]
        range_ = f"from {first.place} to {last.place}"
        if is_cut:
            return (
                [],
                f"There is no such place here: of the file's text, {range_} can be read, and what follows cannot.",
            )
        return [], f"The file has no such place: it goes {range_}."
    begin, end = at[0], at[0]
    left = MAX_READ_CHARS - len(passages[begin].text)
    wanted = at[-1] + 1 if place else len(passages) - 1
    while end < min(wanted, len(passages) - 1) and len(passages[end + 1].text) <= left:
        end += 1
        left -= len(passages[end].text)
    if place and begin and end >= at[-1] and len(passages[begin - 1].text) <= left:
        begin -= 1
    shown = [passages[begin], *(_fresh(each) for each in passages[begin + 1 : end + 1])]
    if end + 1 < len(passages):
        return shown, f"The file goes on: read {passages[end + 1].place}."
    return shown, "The file has more text, which cannot be read here." if is_cut else "The file ends here."


def _at(passages: Sequence[StoredPassage], place: tuple[int, int] | None) -> Sequence[int]:
    if place is None:
        return [0]
    first, last = place
    return [number for number, each in enumerate(passages) if each.first <= last and each.last >= first]


def _fresh(passage: StoredPassage) -> StoredPassage:
    return replace(passage, text=passage.text[passage.repeated :], repeated=0)
