"""The operator's own texts in the judge's prompts: within a run, imitations of them are broken up as those of ours are."""

import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from itertools import chain, islice

from cappella.ensemble.marks import Head

MIN_WORDS = 4
"""Of fewer words a sentence of one's own would stand in ordinary texts as well."""
MIN_LETTERS = 10
"""Of fewer letters it would stand within ordinary words: "Is it a B" in "visit a bank"."""
MIN_UNCASED_LETTERS = 6
"""The same for scripts whose letters are words or syllables, or that write some as marks; of wide ones, without spaces, it is enough."""
MAX_SENTENCES = 32
"""So many of each text are known: those from its beginning."""

_ENDS = re.compile(r"[.!?:;\n\u3002\uff01\uff1f\uff1a\uff1b]+|\{\w+\}")

_notes: ContextVar[tuple[Head, ...]] = ContextVar("own_notes", default=())
_kept: ContextVar[dict[str, str] | None] = ContextVar("answers_broken_up", default=None)


@contextmanager
def known(texts: Iterable[str]) -> Iterator[None]:
    """Within this context, such as one run, the sentences of these texts are notes."""
    notes, kept = _notes.set(notes_of(tuple(dict.fromkeys(texts)))), _kept.set({})
    try:
        yield
    finally:
        _kept.reset(kept)
        _notes.reset(notes)


def current() -> tuple[Head, ...]:
    return _notes.get()


def once(text: str, break_up: Callable[[str], str]) -> str:
    """The text broken up: of an answer once in a run, however often it is read."""
    kept = _kept.get()
    if kept is None:
        return break_up(text)
    if text not in kept:
        kept[text] = break_up(text)
    return kept[text]


@lru_cache(maxsize=64)
def notes_of(texts: tuple[str, ...]) -> tuple[Head, ...]:
    """The beginnings of the texts' sentences that are long enough to be known by."""
    telling = (islice(filter(_is_telling, map(Head.of, _ENDS.split(text))), MAX_SENTENCES) for text in texts)
    return tuple(dict.fromkeys(chain.from_iterable(telling)))


def _is_telling(head: Head) -> bool:
    letters = head.letters
    is_cased = letters.upper() != letters
    has_letters = len(letters) >= (MIN_LETTERS if is_cased else MIN_UNCASED_LETTERS)
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in letters)
    return (head.words >= MIN_WORDS and has_letters) or wide >= MIN_UNCASED_LETTERS
