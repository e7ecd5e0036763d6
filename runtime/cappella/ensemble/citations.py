"""Checks what the final answer of a run cites: a citation of a source that the run did not find is cut, and told."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from cappella.ensemble.citation_text import CitationText, citations_in
from cappella.ensemble.own_marks import HeldLogprobs
from cappella.ensemble.run import Answer
from cappella.ensemble.sources import FoundSources, Source, Sources
from cappella.types import Chunk, OutputFormat


@dataclass(frozen=True, slots=True)
class Cited:
    """A citation of `source` in a piece of the answer, or in all of it; its bracket is at `at`."""

    source: Source
    at: int


class Citations:
    """The citations of one run's final answer. Without sources it changes nothing.

    A text in a requested format stays as it is, since a pattern or an enumeration may ask for what looks like a citation.
    `tell_removed` is called with the handles of each citation that is cut. What looks like one in the caller's own words has
    its `own` handles, and stays.
    """

    def __init__(
        self,
        sources: Sources,
        tell_removed: Callable[[Sequence[str]], None] = lambda handles: None,
        own: AbstractSet[str] = frozenset(),
    ) -> None:
        self._sources = sources
        self._tell_removed = tell_removed
        self._own = own
        self._removed: list[str] = []
        self._unknown: list[str] = []
        self._passed: list[Cited] = []

    @property
    def are_possible(self) -> bool:
        """Whether there is a source to cite."""
        return bool(self._sources.found)

    def of_call(self, output_format: OutputFormat | None) -> "CallCitations | None":
        """What checks the chunks of a call for the final answer; None if there is nothing to cite."""
        return CallCitations(self._text(output_format), self.note) if self.are_possible else None

    def checked(self, answer: Answer, output_format: OutputFormat | None, begins_at: int = 0) -> Answer:
        """An answer that is returned as it is but for citations; it stands at `begins_at` of what is sent."""
        if not self.are_possible:
            return answer
        text = self._text(output_format)
        begun = text.add(answer.content)
        self.note(text, begins_at)
        rest = text.end()
        self.note(text, begins_at + len(begun))
        return replace(answer, content=begun + rest)

    def note(self, text: CitationText, begins_at: int = 0) -> None:
        """Note what a text returned last, which begins there in what is sent next."""
        self._passed += [
            Cited(source, begins_at + each.at) for each in text.found if (source := self._sources.of(each.handle))
        ]
        if new := [handle for handle in text.unknown if handle not in (*self._removed, *self._unknown)]:
            (self._unknown if text.keeps_all else self._removed).extend(new)
        if text.unknown and not text.keeps_all:
            self._tell_removed(text.unknown)

    def take(self) -> Sequence[Cited]:
        """The citations in what is sent now."""
        passed, self._passed = self._passed, []
        return passed

    def told(self, final: Answer, answers: Sequence[Answer]) -> FoundSources | None:
        """What the run found, and who cites it; None without sources."""
        if not self.are_possible:
            return None
        cited = self._handles(final)
        by_member = {answer.name: self._handles(answer) for answer in answers}
        cited_by = {
            source.handle: [name for name, handles in by_member.items() if source.handle in handles]
            for source in self._sources.found
        }
        return FoundSources(self._sources.found, cited, cited_by, self._removed, self._unknown)

    def _text(self, output_format: OutputFormat | None) -> CitationText:
        return CitationText(self._is_known, keeps_all=output_format is not None, own=self._own.__contains__)

    def _handles(self, answer: Answer) -> list[str]:
        return list(dict.fromkeys(each.handle for each in citations_in(answer.content, self._is_known)))

    def _is_known(self, handle: str) -> bool:
        return self._sources.of(handle) is not None


class CallCitations:
    """Checks the content of one completion. Log-probabilities of held text come with the next text, as `ChunkCutter` does it."""

    def __init__(self, text: CitationText, note: Callable[[CitationText, int], None]) -> None:
        self._text = text
        self._note = note
        self._logprobs = HeldLogprobs()

    def cut(self, chunk: Chunk) -> Chunk:
        """The chunk without citations of nothing and what is held back, with what was held if the text ends."""
        is_last = chunk.finish_reason is not None
        content = self._text.add(chunk.content)
        self._note(self._text, 0)
        if chunk.tool_calls or is_last:
            begun, content = len(content), content + self._text.end()
            self._note(self._text, begun)
        return replace(chunk, content=content, logprobs=self._logprobs.with_text(chunk, content))


def cited_in(text: str, found: FoundSources | None) -> Sequence[Cited]:
    """The citations in a whole text of a run that found these sources."""
    if found is None:
        return ()
    by_handle = {source.handle: source for source in found.found}
    return [Cited(by_handle[each.handle], each.at) for each in citations_in(text, by_handle.__contains__)]
