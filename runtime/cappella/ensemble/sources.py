"""The passages that the tools of one run found: each has a handle, by which members and judge cite it."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from itertools import count

from cappella.tools.base import Passage


@dataclass(slots=True)
class Source:
    """A passage with its handle, such as S1; `found_by` are the members that found it, and the judge."""

    handle: str
    passage: Passage
    found_by: list[str] = field(default_factory=list)


class Sources:
    """One for each run. A passage that several seats find has one handle, none of those that are `taken`."""

    def __init__(self, taken: AbstractSet[str] = frozenset()) -> None:
        self._free = (handle for number in count(1) if (handle := f"S{number}") not in taken)
        self._by_passage: dict[Passage, Source] = {}
        self._by_handle: dict[str, Source] = {}

    @property
    def found(self) -> Sequence[Source]:
        """All so far, in the order of their handles."""
        return list(self._by_passage.values())

    def of(self, handle: str) -> Source | None:
        """The source of this handle, if there is one."""
        return self._by_handle.get(handle)

    def add(self, passages: Sequence[Passage], finder: str) -> Sequence[Source]:
        """The sources of these passages, which `finder` found."""
        for passage in passages:
            source = self._by_passage.get(passage) or Source(next(self._free), passage)
            self._by_passage[passage] = self._by_handle[source.handle] = source
            if finder not in source.found_by:
                source.found_by.append(finder)
        return [self._by_passage[passage] for passage in passages]

    def take_back(self, sources: Sequence[Source], finder: str) -> None:
        """These were not given to `finder` after all."""
        for source in sources:
            if finder in source.found_by:
                source.found_by.remove(finder)


@dataclass(frozen=True, slots=True)
class FoundSources:
    """All sources of a run that has ended, and who cites them.

    `cited` are the handles in the final answer, in its order; `cited_by` has the members whose answers cite a handle. `removed`
    are handles without a source whose citations were cut from the final answer, `unknown` those that stand in it, as it has a
    requested format.
    """

    found: Sequence[Source]
    cited: Sequence[str]
    cited_by: Mapping[str, Sequence[str]]
    removed: Sequence[str] = ()
    unknown: Sequence[str] = ()
