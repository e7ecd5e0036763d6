"""Finds citations such as [S3] in a text that comes in pieces, and cuts those of sources that do not exist.

Models that are asked to cite write [S1], [S1, S3] and [S1][S3]; "(S3)" is more often a name than a citation. In code, and as
the text of a Markdown link, they are no citations. What is more likely an index or code than a citation stays, though no
source has its handle: rather a citation of nothing than an answer without what it means.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from cappella.ensemble.code_places import CodePlaces, Kind

MAX_HANDLES = 16
"""In one pair of brackets."""
MAX_IN_ROW = 4
"""Pairs of brackets that are read together."""
_HANDLE = r"S\d{1,4}"
_NEXT = r"[,;] ?"
_LIST = rf"{_HANDLE}(?:{_NEXT}{_HANDLE}){{0,{MAX_HANDLES - 1}}}"
_BRACKETS = rf"\[{_LIST}\]"
_ROW = rf"{_BRACKETS}(?:[,;]? ?{_BRACKETS}){{0,{MAX_IN_ROW - 1}}}"
MAX_CHARS = MAX_IN_ROW * len(f"[{', '.join(['S1234'] * MAX_HANDLES)}], ") + len(" ****** :http")
"""Of a row of citations with what is around it."""
# The text of a link or its definition, which is no citation.
_NO_LINK = r"(?!\(|\[(?!S\d)|: ?(?:http|<|/))"
_CITATION = rf" ?(?:(?P<emphasis>\*{{1,3}}|_{{1,3}}){_ROW}(?P=emphasis)|\({_ROW}\)|\[{_ROW}\]|{_ROW}){_NO_LINK}"
# It may match more than what begins a citation: all that it matches is held back, and read again with what follows.
_BEGUN = rf"(?=.) ?(?:[*_]{{1,3}}|[(\[])?(?:\[(?:S[\[\]()*_,; S\d]{{0,{MAX_CHARS}}}(?:: ?(?:ht{{0,2}})?)?)?)?\Z"
_OTHERS = r"(?P<ticks>`+|~+)|(?P<newline>\n)|"
_CITES = rf"(?P<citation>{_CITATION})|(?P<blank>[ \t\r])|(?P<words>[^\s`~\[(*_<>$]+|.)"
_TOKENS = re.compile(rf"{_OTHERS}(?P<begun>{_BEGUN})|{_CITES}", re.DOTALL)
_LAST_TOKENS = re.compile(_OTHERS + _CITES, re.DOTALL)
_HAS_ANY = re.compile(rf"\[{_HANDLE}")
_PAIR = re.compile(rf"(?P<between>[,;]? ?)\[(?P<list>{_LIST})\]")
_HANDLES = re.compile(_HANDLE)
_LISTED = re.compile(_BRACKETS)


def nobodys(handle: str) -> bool:
    """Of a text without handles of the caller's own."""
    return False


@dataclass(frozen=True, slots=True)
class Citation:
    """A citation of one source; `at` is the place of its bracket in the text."""

    handle: str
    at: int


class CitationText:
    """Passes a text on without its citations of sources that are not `known`. However it is split, the results join to the same text.

    What may begin a citation is held back until that is known: at most MAX_CHARS. Brackets and emphasis around what is cut go with
    it, and a text that were empty without it keeps it. `found` are the citations in what
    `add` or `end` returned last, `unknown` the handles in all of it that are not known; with `keeps_all` these stay in the text.
    The caller's `own` cite nothing, and stay.
    """

    def __init__(
        self, known: Callable[[str], bool], keeps_all: bool = False, own: Callable[[str], bool] = nobodys
    ) -> None:
        self.found: Sequence[Citation] = ()
        self.unknown: Sequence[str] = ()
        self.keeps_all = keeps_all
        self._known = known
        self._own = own
        self._code = CodePlaces()
        self._held = ""
        self._before = ""
        self._follows_citation = False
        self._has_text = False
        self._cut_first, self._cut_unknown = "", list[str]()

    def add(self, piece: str) -> str:
        return self._passed(piece, is_end=False)

    def end(self) -> str:
        """The rest of the text."""
        rest = self._passed("", is_end=True)
        return rest if self._has_text else rest + self._cut_first

    def _passed(self, piece: str, is_end: bool) -> str:
        text, self._held = self._held + piece, ""
        parts, length = list[str](), 0
        self.found, self.unknown = [], []
        for match in (_LAST_TOKENS if is_end else _TOKENS).finditer(text):
            token, kind = match[0], match.lastgroup
            is_outside = kind in ("begun", "citation") and not self._code.has_code()
            if kind == "begun" and is_outside:
                self._held = token
                break
            is_citation = kind == "citation" and is_outside
            passed = self._checked(token, length) if is_citation else token
            self._note(token, kind, passed, is_citation and (passed != token or self._cites(token)))
            parts.append(passed)
            length += len(passed)
        return "".join(parts)

    def _note(self, token: str, kind: str | None, passed: str, is_citation: bool) -> None:
        """Note where the text is after a token."""
        self._code.add(token, _kind_of(token, kind))
        self._before, self._follows_citation = token[-1], is_citation
        if passed.strip() and not self._has_text:
            self._has_text = True
            self.unknown = [*self._cut_unknown, *self.unknown]

    def _cites(self, token: str) -> bool:
        return any(map(self._known, _HANDLES.findall(token)))

    def _checked(self, token: str, length: int) -> str:
        """A row of citations with those of its handles that are known; nothing, and no blank before it, where none is."""
        handles = _HANDLES.findall(token)
        unknown = [handle for handle in handles if not self._stays(handle)]
        stay = len(unknown) < len(handles)
        if not stay and not self.keeps_all and self._may_mean_more(token):
            return token
        passed = token if self.keeps_all or not unknown else self._cut(token) if stay else ""
        self._note_unknown(token, passed, unknown)
        for pair in _PAIR.finditer(passed):
            at = length + pair.end("between")
            self.found = [
                *self.found,
                *(Citation(each, at) for each in _HANDLES.findall(pair["list"]) if self._known(each)),
            ]
        return passed

    def _stays(self, handle: str) -> bool:
        return self._known(handle) or self._own(handle)

    def _note_unknown(self, token: str, passed: str, unknown: Sequence[str]) -> None:
        if passed or self._has_text:
            self.unknown = [*self.unknown, *unknown]
        else:
            self._cut_first = self._cut_first or token
            self._cut_unknown += [each for each in unknown if each not in self._cut_unknown]

    def _may_mean_more(self, token: str) -> bool:
        """Whether a row of which no handle is known is rather an index, or code."""
        begins_at_word = token[0] != " " and not self._follows_citation
        is_index = begins_at_word and (self._before.isalnum() or self._before in tuple("])}_\\\"'"))
        return is_index or self._code.may_be_code()

    def _cut(self, token: str) -> str:
        """A row without its unknown handles."""
        pairs = [*_PAIR.finditer(token)]
        rows = [
            (pair["between"], [each for each in _HANDLES.findall(pair["list"]) if self._stays(each)]) for pair in pairs
        ]
        kept = [(between, f"[{', '.join(handles)}]") for between, handles in rows if handles]
        begin, end = token[: pairs[0].end("between")], token[pairs[-1].end() :]
        return begin + kept[0][1] + "".join(between + each for between, each in kept[1:]) + end


def _kind_of(token: str, kind: str | None) -> Kind:
    """A citation, or what may begin one, counts as words, but for a blank."""
    if kind in ("citation", "begun"):
        return "words" if token.strip() else "blank"
    return cast(Kind, kind)


def handles_in(text: str) -> set[str]:
    """The handles in all that looks like a citation, also in code."""
    if not _HAS_ANY.search(text):
        return set()
    return {handle for match in _LISTED.finditer(text) for handle in _HANDLES.findall(match[0])}


def citations_in(text: str, known: Callable[[str], bool]) -> Sequence[Citation]:
    """The citations of known sources in a whole text."""
    if not _HAS_ANY.search(text):
        return ()
    reader = CitationText(known, keeps_all=True)
    begun = len(reader.add(text))
    found = reader.found
    reader.end()
    return [*found, *(Citation(each.handle, begun + each.at) for each in reader.found)]
