"""The part of a trace that says what the tools of a run found, and what of it is cited."""

from cappella.ensemble.sources import FoundSources, Source
from cappella.telemetry.trace_types import SourcesTrace, ToldSource

MAX_TEXT_CHARS = 2000
"""Of each passage."""


def add(trace: SourcesTrace, found: FoundSources | None, cited_only: bool) -> None:
    """Tell the sources of a run, or only those that its answer cites, with how many there are."""
    if found is None:
        return
    told = [source for source in found.found if not cited_only or source.handle in found.cited]
    trace["sources"] = [_told(source, found) for source in told]
    trace["source_counts"] = {"found": len(found.found), "cited": len(found.cited)}
    if found.removed:
        trace["removed_citations"] = list(found.removed)
    if found.unknown:
        trace["unknown_citations"] = list(found.unknown)


def _told(source: Source, found: FoundSources) -> ToldSource:
    passage = source.passage
    told: ToldSource = {
        "handle": source.handle,
        "documents": passage.documents,
        "path": passage.path,
        "place": passage.place,
        "text": passage.text[:MAX_TEXT_CHARS],
        "found_by": list(source.found_by),
        "cited": source.handle in found.cited,
        "cited_by": list(found.cited_by.get(source.handle, ())),
    }
    if passage.title:
        told["title"] = passage.title
    if len(passage.text) > MAX_TEXT_CHARS:
        told["text_chars"] = len(passage.text)
    return told
