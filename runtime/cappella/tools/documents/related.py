"""Passages that name what a found passage names: the second step of a question whose answer lies in two documents.

The ship's page that a question finds names its captain, whose own page it does not find. So the names and identifiers of the
best hits that few other passages have are looked up in other documents, the words of the question beside them.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from cappella.tools.documents import terms
from cappella.tools.documents.index import Index
from cappella.tools.documents.index_rows import StoredPassage

MAX_LINKING_HITS = 3
"""Of so many of the best hits, names are looked up. What the second's lead to counts for half, the third's for a third."""
MAX_CANDIDATES = 48
"""Names of a hit that are looked up."""
MAX_LINKS = 8
"""Of these, the rarest of a hit that other files have."""
MAX_SHARED = 50
"""A name in more passages than that leads nowhere."""
STEM_CHARS = 5
"""Words that begin alike are taken for one here."""
MAX_NAME_WORDS = 4
MIN_DIGITS = 5
"""Of a number without letters: years and small counts are shared by accident."""
_TOKEN = re.compile(r"[^\W_]+(?:[-./'\u2019][^\W_]+)*")
_PARTS = re.compile(r"[^\W_]+")
_SENTENCE_ENDS = ".!?:;\n\u2022|"


@dataclass(frozen=True, slots=True)
class Related:
    """A passage that has a name in common, `by`, with the hit of index `to`."""

    passage: StoredPassage
    to: int
    by: str


def related(
    index: Index, languages: Sequence[str], question: str, hits: Sequence[StoredPassage], most: int
) -> Sequence[Related]:
    """The best passages of other documents that are related to the hits and none of them."""
    leads = [_lead(index, languages, question, hit) for hit in hits[:MAX_LINKING_HITS]] if most else []
    left = {passage for lead in leads for scores in lead.names.values() for passage in scores}
    left -= {hit.id for hit in hits}
    chosen: dict[int, tuple[int, str]] = {}
    while left and len(chosen) < most:
        worth = {passage: _worth(passage, leads, chosen) for passage in left}
        best = max(left, key=lambda each: (worth[each][0], -each))
        left.remove(best)
        chosen[best] = worth[best][1:]
    found = ((passage, *chosen[passage.id]) for passage in index.passages(list(chosen)))
    return [Related(passage, to, _written(name, hits[to])) for passage, to, name in found]


@dataclass(frozen=True, slots=True)
class _Lead:
    """The names of a hit, each with the passages of other files that have it and their scores for it; and of all these
    the scores for the words of the question that the hit lacks."""

    names: Mapping[str, Mapping[int, float]]
    asked: Mapping[int, float]


def _lead(index: Index, languages: Sequence[str], question: str, hit: StoredPassage) -> _Lead:
    words, stop = _PARTS.findall(question.lower()), terms.stop_words(languages)
    runs = [each for each in names_in(_whole(hit), stop) if not set(words).issuperset(each)]
    names = list(dict.fromkeys(map(" ".join, runs)))[:MAX_CANDIDATES]
    scores = {each: index.scores(f'"{each}"', MAX_SHARED + 1) for each in names}
    own = {each.id for each in index.passages_of(hit.path)}
    elsewhere = {
        each: {passage: score for passage, score in found.items() if passage not in own}
        for each, found in sorted(scores.items(), key=lambda item: len(item[1]))
        if len(found) <= MAX_SHARED and not own.issuperset(found)
    }
    links = dict(list(elsewhere.items())[:MAX_LINKS])
    # What the hit has of the question, it has answered, or is found again in every page of its kind.
    has = {each[:STEM_CHARS] for each in _PARTS.findall(_whole(hit).lower())}
    lacking = terms.query_of(" ".join(each for each in words if each[:STEM_CHARS] not in has), languages)
    return _Lead(links, _asked(index, links, lacking))


def _asked(index: Index, links: Mapping[str, Mapping[int, float]], words: str) -> Mapping[int, float]:
    """The scores of the passages with links for these words."""
    if not links or not words:
        return {}
    names = " OR ".join(f'"{each}"' for each in links)
    # A score is the sum of those of the words, so that what the names give can be taken away.
    scores = index.scores(f"({names}) AND ({words})", MAX_SHARED * len(links))
    return {each: score - sum(found.get(each, 0.0) for found in links.values()) for each, score in scores.items()}


def _worth(passage: int, leads: Sequence[_Lead], chosen: Collection[int]) -> tuple[float, int, str]:
    """How good a passage is after the chosen ones, the rank of the hit that speaks most for it, and their rarest name."""
    best = -1.0, 0, ""
    for rank, lead in enumerate(leads):
        named = {name: scores for name, scores in lead.names.items() if passage in scores}
        if not named:
            continue
        # The next name says more than a second page on one.
        new = [scores[passage] for scores in named.values() if not scores.keys() & chosen]
        value = (sum(new) + lead.asked.get(passage, 0.0)) / (rank + 1)
        best = max(best, (value, rank, max(named, key=lambda name: named[name][passage])), key=lambda each: each[0])
    return best


def names_in(text: str, stop_words: Collection[str]) -> Iterator[Sequence[str]]:
    """The words, in small letters, of each run of capitalised words, and of each identifier, such as `K-722`.

    The first word of a sentence has its capital anyway: alone it is no name, and a name may begin behind it.
    """
    run: list[str] = []
    at_start = is_first = True
    end = 0
    for token in _TOKEN.finditer(text):
        between = text[end : token.start()]
        is_first = not end or any(sign in between for sign in _SENTENCE_ENDS)
        if between != " " or is_first:
            yield from _of_run(run, at_start)
            run = []
        end = token.end()
        word, parts = token[0], _PARTS.findall(token[0].lower())
        if any(map(str.isdigit, word)):
            if any(map(str.isalpha, word)) or sum(map(str.isdigit, word)) >= MIN_DIGITS:
                yield parts
        elif word[0].isupper() and not all(part in stop_words for part in parts):
            at_start = at_start if run else is_first
            run += parts
            continue
        yield from _of_run(run, at_start)
        run = []
    yield from _of_run(run, at_start)


def _of_run(run: Sequence[str], at_start: bool) -> Iterator[Sequence[str]]:
    for words in (run, run[1:]) if at_start else (run,):
        if (len(words) > at_start or words is not run) and 0 < len(words) <= MAX_NAME_WORDS:
            yield words


def _written(name: str, hit: StoredPassage) -> str:
    """The name as the hit writes it."""
    found = re.search(r"[\W_]+".join(name.split()), _whole(hit), re.IGNORECASE)
    return " ".join(found[0].split()) if found else name


def _whole(passage: StoredPassage) -> str:
    return f"{passage.heading or passage.title}\n{passage.text}"
