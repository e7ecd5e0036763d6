"""The outcomes of an evaluation by question and way, and the ways that cost no call: they count what was asked."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cappella.evaluation.data import Question


@dataclass(frozen=True, slots=True)
class Outcome:
    """One way's answer to one question: what it cost in all, its members' answers included."""

    right: bool
    value: str | None = None
    unread: bool = False
    read_tokens: int = 0
    written_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int:
        return self.read_tokens + self.written_tokens


Row = list[Outcome | None]
"""By question; None where there is no answer."""


@dataclass(slots=True)
class Results:
    """All that was asked. `samples` are those of the best member, by question; `traces` the runs' own records, by way.

    `best` names the member that was chosen for each question; `problems` counts why answers are missing.
    """

    questions: Sequence[Question]
    names: Sequence[str]
    members: dict[str, Row]
    best: list[str]
    ways: dict[str, Row]
    samples: list[list[Outcome]]
    traces: dict[str, list[Any]]
    problems: Counter[str]
    contested: list[bool]
    models: dict[str, str]
    judge: str


def spent(outcomes: Sequence[Outcome]) -> Outcome:
    """The sum of tokens, and the time of the slowest, since they run at once."""
    return Outcome(
        right=False,
        read_tokens=sum(each.read_tokens for each in outcomes),
        written_tokens=sum(each.written_tokens for each in outcomes),
        seconds=max((each.seconds for each in outcomes), default=0.0),
    )


def after(panel: Sequence[Outcome], last: Outcome) -> Outcome:
    """The outcome of a run that goes on from a panel's answers, with the panel's cost."""
    cost = spent(panel)
    return replace(
        last,
        read_tokens=cost.read_tokens + last.read_tokens,
        written_tokens=cost.written_tokens + last.written_tokens,
        seconds=cost.seconds + last.seconds,
    )


def majority(answers: Sequence[Outcome]) -> Outcome | None:
    """The first answer with the most frequent value; answers without a value have no vote. None without an answer."""
    if not answers:
        return None
    counts = Counter(each.value for each in answers if each.value is not None)
    top = max(counts.values(), default=0)
    chosen = next((each for each in answers if each.value is not None and counts[each.value] == top), answers[0])
    return after(answers, Outcome(chosen.right, chosen.value, chosen.unread))


def oracle(answers: Sequence[Outcome]) -> Outcome | None:
    """A right answer, if there is any: what a perfect choice would give."""
    if not answers:
        return None
    return after(answers, next((replace(each, **_FREE) for each in answers if each.right), Outcome(False)))


_FREE: dict[str, Any] = {"read_tokens": 0, "written_tokens": 0, "seconds": 0.0}


def panel_of(results: Results, number: int, without: str = "") -> list[Outcome]:
    """The members' answers to a question that there are."""
    rows = [results.members[name][number] for name in results.names if name != without]
    return [each for each in rows if each is not None]


def is_contested(answers: Sequence[Outcome], by_value: bool) -> bool:
    """Whether members differ: in value, or where right answers may differ in value, in being right."""
    return len({each.value if by_value else each.right for each in answers}) > 1


def best_by_halves(members: dict[str, Row], half_of: Sequence[int]) -> list[str]:
    """For each question the member that did best on the other half: nobody is chosen by what he is measured on.

    Missing answers count as wrong. A tie goes to the member with fewer tokens, then to the earlier seat.
    """
    chosen = {half: max(members, key=lambda name: _merit(members[name], half_of, half)) for half in (0, 1)}
    return [chosen[1 - half] for half in half_of]


def _merit(row: Row, half_of: Sequence[int], half: int) -> tuple[int, int]:
    there = [each for each, at in zip(row, half_of, strict=True) if at == half and each is not None]
    return sum(each.right for each in there), -sum(each.tokens for each in there)
