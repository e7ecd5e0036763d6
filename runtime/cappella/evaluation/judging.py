"""What the judge did with the panel's answers: right turned into wrong and back, and whether place or author swayed it."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from cappella.evaluation import outcomes
from cappella.evaluation.findings import BEST, Findings
from cappella.evaluation.outcomes import Results
from cappella.evaluation.statistics import LEVEL, uneven


@dataclass(frozen=True, slots=True)
class Turned:
    """How a run ended, by what the panel knew, and against the best member's answer."""

    way: str
    all_right: int
    all_right_spoilt: int
    some_right: int
    some_right_missed: int
    none_right: int
    none_right_saved: int
    right_to_wrong: int
    wrong_to_right: int
    degraded: int


@dataclass(frozen=True, slots=True)
class Place:
    """One letter: how often an answer stood there, was chosen and was right there; `probability` is the judge's mean one."""

    letter: str
    shown: int
    chosen: int
    right: int
    probability: float | None


@dataclass(frozen=True, slots=True)
class Author:
    """One member as the judge saw it: how often it was chosen, and was right; chosen while wrong though another was right."""

    member: str
    is_judge: bool
    shown: int
    chosen: int
    right: int
    chosen_wrong: int


@dataclass(frozen=True, slots=True)
class Choices:
    """A run's choices among the panel's answers. `place_p` is the probability of so uneven letters by chance."""

    way: str
    n: int
    places: Sequence[Place]
    authors: Sequence[Author]
    place_p: float

    @property
    def prefers_a_place(self) -> bool:
        return self.place_p < LEVEL

    @property
    def own(self) -> Author | None:
        """The judge's own seat on the panel, if it has one."""
        return next((author for author in self.authors if author.is_judge), None)


def turned(results: Results, findings: Findings) -> list[Turned]:
    """A line for each run."""
    return [_turned(results, findings, way) for way in results.traces if " without " not in way]


def _turned(results: Results, findings: Findings, way: str) -> Turned:
    counts: Counter[str] = Counter()
    for i, outcome in enumerate(findings.rows[way]):
        panel, best = outcomes.panel_of(results, i), findings.rows[BEST][i]
        if outcome is None or not panel:
            continue
        knew = sum(each.right for each in panel)
        kind = "all" if knew == len(panel) else "some" if knew else "none"
        counts[kind] += 1
        counts[f"{kind} {outcome.right}"] += 1
        if best is not None:
            counts["lost"] += best.right and not outcome.right
            counts["won"] += outcome.right and not best.right
        counts["degraded"] += (results.traces[way][i] or {}).get("status") == "degraded"
    return Turned(
        way,
        counts["all"],
        counts["all False"],
        counts["some"],
        counts["some False"],
        counts["none"],
        counts["none True"],
        counts["lost"],
        counts["won"],
        counts["degraded"],
    )


def choices(results: Results) -> list[Choices]:
    """A record for each run that chose one answer, where the traces tell by letter who was shown where."""
    return [found for way in results.traces if " without " not in way and (found := _choices(results, way))]


def _choices(results: Results, way: str) -> Choices | None:
    seen = list(_seen(results, way))
    if not seen:
        return None
    shown: Counter[str] = Counter()
    chosen: Counter[str] = Counter()
    right: Counter[str] = Counter()
    expected: dict[str, float] = defaultdict(float)
    probabilities: dict[str, list[float]] = defaultdict(list)
    for i, trace in seen:
        for letter, name in trace["labels"].items():
            shown[letter] += 1
            expected[letter] += 1 / len(trace["labels"])
            chosen[letter] += trace["chosen"] == name
            right[letter] += _is_right(results, name, i)
            if name in (trace.get("probabilities") or {}):
                probabilities[letter].append(trace["probabilities"][name])
    letters = sorted(shown)
    places = [
        Place(each, shown[each], chosen[each], right[each], fmean(probabilities[each]) if probabilities[each] else None)
        for each in letters
    ]
    place_p = uneven([chosen[each] for each in letters], [expected[each] for each in letters])
    return Choices(way, len(seen), places, [_author(results, name, seen) for name in results.names], place_p)


def _seen(results: Results, way: str) -> Iterator[tuple[int, Any]]:
    """The traces of judged choices, with the number of the question. Without the judge's probabilities it was no choice of its."""
    for i, trace in enumerate(results.traces[way]):
        if trace and trace.get("chosen") and trace.get("probabilities") and len(trace.get("labels") or {}) > 1:
            yield i, trace


def _author(results: Results, name: str, seen: Sequence[tuple[int, Any]]) -> Author:
    own = [(i, trace) for i, trace in seen if name in trace["labels"].values()]
    chosen = [(i, trace) for i, trace in own if trace["chosen"] == name]
    wrong = sum(
        not _is_right(results, name, i) and any(_is_right(results, other, i) for other in trace["labels"].values())
        for i, trace in chosen
    )
    right = sum(_is_right(results, name, i) for i, _ in own)
    return Author(name, results.models[name] == results.judge, len(own), len(chosen), right, wrong)


def _is_right(results: Results, name: str, number: int) -> bool:
    outcome = results.members[name][number] if name in results.members else None
    return outcome is not None and outcome.right
