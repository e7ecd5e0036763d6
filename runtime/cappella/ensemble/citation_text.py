"""Finds citations such as [S3] in a text that comes in pieces, and cuts those of sources that do not exist.

Models that are asked to cite write [S1], [S1, S3] and [S1][S3]; "(S3)" is more often a name than a citation. In code, and as
the text of a Markdown link, they are no citations.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from cappella.ensemble.code_places import CodePlaces, Kind

MAX_HANDLES = 16
"""In one pair of brackets."""
_HANDLE = r"S\d{1,4}"
_NEXT = r"[,;] ?"
_LIST = rf"{_HANDLE}(?:{_NEXT}{_HANDLE}){{0,{MAX_HANDLES - 1}}}"
_BEGUN = rf" ?\[(?:{_HANDLE}{_NEXT}){{0,{MAX_HANDLES - 1}}}(?:S\d{{0,4}})?\]?"
_CITATION = rf" ?\[{_LIST}\](?!\()"
# What may begin a citation at the end of a piece comes before a whole one, whose next character may make it a link.
_TOKENS = re.compile(
    rf"(?P<ticks>`+|~+)|(?P<newline>\n)|(?P<begun>(?:{_BEGUN}| )\Z)|(?P<citation>{_CITATION})"
    r"|(?P<blank>[ \t\r]+)|(?P<words>[^\s`~\[]+|.)",
    re.DOTALL,
)
_HAS_ANY = re.compile(rf"\[{_HANDLE}")
_WHOLE = re.compile(_CITATION)
_HANDLES = re.compile(_HANDLE)


@dataclass(frozen=True, slots=True)
class Citation:
    """A citation of one source; `at` is the place of its bracket in the text."""

    handle: str
    at: int


class CitationText:
    """Passes a text on without its citations of sources that are not `known`. However it is split, the results join to the same text.

    What may begin a citation is held back until that is known: at most the length of one. `found` are the citations in what
    `add` or `end` returned last, `unknown` the handles in all of it that are not known; with `keeps_all` these stay in the text.
    """

    def __init__(self, known: Callable[[str], bool], keeps_all: bool = False) -> None:
        self.found: Sequence[Citation] = ()
        self.unknown: Sequence[str] = ()
        self.keeps_all = keeps_all
        self._known = known
        self._code = CodePlaces()
        self._held = ""

    def add(self, piece: str) -> str:
        return self._passed(piece, is_end=False)

    def end(self) -> str:
        """The rest of the text."""
        return self._passed("", is_end=True)

    def _passed(self, piece: str, is_end: bool) -> str:
        text, self._held = self._held + piece, ""
        parts, length = list[str](), 0
        self.found, self.unknown = [], []
        for match in _TOKENS.finditer(text):
            token, kind = match[0], match.lastgroup
            if kind == "begun" and not is_end and not self._code.has_code():
                self._held = token
                break
            is_citation = kind == "citation" or (kind == "begun" and _WHOLE.fullmatch(token))
            passed = self._checked(token, length) if is_citation and not self._code.has_code() else token
            self._code.add(token, _kind_of(token, kind))
            parts.append(passed)
            length += len(passed)
        return "".join(parts)

    def _checked(self, token: str, length: int) -> str:
        """A citation with those of its handles that are known; nothing, and no blank before it, where none is."""
        handles = _HANDLES.findall(token)
        known = [handle for handle in handles if self._known(handle)]
        self.unknown = [*self.unknown, *(handle for handle in handles if handle not in known)]
        at = length + (token[0] == " ")
        self.found = [*self.found, *(Citation(handle, at) for handle in known)]
        if self.keeps_all or len(known) == len(handles):
            return token
        blank = " " if token[0] == " " else ""
        return f"{blank}[{', '.join(known)}]" if known else ""


def _kind_of(token: str, kind: str | None) -> Kind:
    """A citation, or what may begin one, counts as words, but for a blank."""
    if kind in ("citation", "begun"):
        return "words" if token.strip() else "blank"
    return cast(Kind, kind)


def citations_in(text: str, known: Callable[[str], bool]) -> Sequence[Citation]:
    """The citations of known sources in a whole text."""
    if not _HAS_ANY.search(text):
        return ()
    reader = CitationText(known, keeps_all=True)
    begun = len(reader.add(text))
    found = reader.found
    reader.end()
    return [*found, *(Citation(each.handle, begun + each.at) for each in reader.found)]
