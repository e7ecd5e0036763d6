"""The words of texts and of questions, as the full-text index takes them.

English is stemmed (Porter). Of other languages SQLite has no stemmer: a word of a question also finds those that begin as it does
without its ending. Scripts without spaces are indexed by character, and found by pairs of neighbours.
"""

import re
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet

MAX_QUESTION_WORDS = 32
"""More say little, and each costs a look-up."""
MIN_STEM_CHARS = 4
MAX_ENDING_CHARS = 3
_WORD = re.compile(r"[^\W_]+")
_UNSPACED = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff\u0e00-\u0eff]")
_STOP_WORDS = {
    "en": "a about an and are as at be by can do does for from how i if in is it of on or our that the this to was we what when where which who why will with you your",
    "de": "als am an auf aus bei das dem den der des die ein eine einen einer für ich im in ist mit nach nicht sich sie sind und von was wer wie wir wo zu zum zur",
    "fr": "au aux ce ces dans de des du elle en est et il je la le les mais ne nous on ou par pas pour que qui sa se son sur un une vous",
    "es": "al como con de del el en es la las lo los no para por que se su un una y",
    "it": "al che come con da dei del della di e gli i il in la le lo non per si su un una",
    "nl": "aan bij dat de een en er het hoe in is je met niet of om op te uit van voor wat wie zijn",
    "pt": "a ao as com como da das de do dos e em na no não o os para por que se um uma",
}


def tokenizer(languages: Sequence[str]) -> str:
    """The tokenizer of the index: words without accents, stemmed where English is among the languages."""
    return f"{'porter ' if 'en' in languages else ''}unicode61 remove_diacritics 2"


def indexed(text: str) -> str:
    """The text as it is given to the index."""
    return _UNSPACED.sub(r" \g<0> ", text)


def query_of(question: str, languages: Sequence[str]) -> str:
    """The query for a question: passages with any of its words, of which the rarer count for more. Empty if it has none."""
    words = list(dict.fromkeys(_words(question)))
    stop = stop_words(languages)
    telling = [word for word in words if word not in stop] or words
    return " OR ".join(part for word in telling[:MAX_QUESTION_WORDS] for part in _parts(word, languages))


def stop_words(languages: Sequence[str]) -> AbstractSet[str]:
    """The words of these languages that say nothing of what a text is about."""
    return {word for language in languages for word in _STOP_WORDS.get(language, "").split()}


def _words(question: str) -> Iterator[str]:
    for run in _WORD.findall(question.lower()):
        last = 0
        for unspaced in re.finditer(rf"(?:{_UNSPACED.pattern})+", run):
            if unspaced.start() > last:
                yield run[last : unspaced.start()]
            characters = unspaced[0]
            yield from (" ".join(characters[at : at + 2]) for at in range(max(1, len(characters) - 1)))
            last = unspaced.end()
        if last < len(run):
            yield run[last:]


def _parts(word: str, languages: Sequence[str]) -> Iterator[str]:
    # Only letters and digits, in quotes: nothing of a question is an operator.
    yield f'"{word}"'
    if set(languages) != {"en"} and " " not in word and len(word) > MIN_STEM_CHARS and not word.isdigit():
        ending = min(MAX_ENDING_CHARS, len(word) // 3)
        yield f'"{word[: max(MIN_STEM_CHARS, len(word) - ending)]}" *'
