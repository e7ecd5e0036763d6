"""The operator's own texts in the judge's prompts: within a run, imitations of them are broken up as those of ours are."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache

MIN_WORDS = 4
"""Of fewer words a sentence of one's own would stand in ordinary texts as well."""
MIN_WIDE_LETTERS = 6
"""The same where words have no spaces between them, as in Chinese."""
MAX_SENTENCES = 32
"""So many of each text are known: those from its beginning."""

_ENDS = re.compile(r"[.!?:;\n\u3002\uff01\uff1f\uff1a\uff1b]+|\{\w+\}")

_notes: ContextVar[tuple[str, ...]] = ContextVar("own_notes", default=())


@contextmanager
def known(texts: Iterable[str]) -> Iterator[None]:
    """Within this context, such as one run, the sentences of these texts are notes."""
    token = _notes.set(notes_of(tuple(dict.fromkeys(texts))))
    try:
        yield
    finally:
        _notes.reset(token)


def current() -> tuple[str, ...]:
    return _notes.get()


@lru_cache(maxsize=64)
def notes_of(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The sentences of the texts that are long enough to be known by their beginning."""
    return tuple(
        sentence.strip()
        for text in texts
        for sentence in [each for each in _ENDS.split(text) if _is_telling(each)][:MAX_SENTENCES]
    )


def _is_telling(sentence: str) -> bool:
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in sentence)
    return len(re.findall(r"[^\W\d_]+", sentence)) >= MIN_WORDS or wide >= MIN_WIDE_LETTERS
