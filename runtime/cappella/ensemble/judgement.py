"""A judgement of answers that come from elsewhere: what is asked of the judge, what it costs, and what came of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cappella.ensemble.run import Analysis, Answer, Shortened

Want = Literal["analysis", "scores", "ranking", "preference"]
RankedBy = Literal["preference", "scores", "choice"]
MAX_ORDERS = 8
"""Orders in which the judge chooses among all answers. Of more answers, not each has stood at each place."""
OVERALL = "overall"
OVERALL_POINTS = 10


@dataclass(frozen=True, slots=True)
class Criterion:
    """What earns up to so many points; `about` says more than its name."""

    name: str
    points: int
    about: str = ""


@dataclass(frozen=True, slots=True)
class JudgeTask:
    """What is wanted of the judge. `criteria` is what it weighs first; without a `rubric` it gives points for all in all."""

    want: frozenset[Want]
    criteria: str | None = None
    rubric: Sequence[Criterion] = ()

    @property
    def graded_by(self) -> Sequence[Criterion]:
        return self.rubric or (Criterion(OVERALL, OVERALL_POINTS),)

    @property
    def ranked_by(self) -> RankedBy | None:
        """What the ranking is made of: what is asked for anyway, or else the judge's choices among all answers."""
        if "ranking" not in self.want:
            return None
        return "preference" if "preference" in self.want else "scores" if "scores" in self.want else "choice"

    def calls(self, answers: int) -> int:
        """How many calls it takes, unless one is repeated."""
        return len(self._readings(answers))

    def chars_read(self, question: int, sizes: Sequence[int]) -> int:
        """The characters that all calls read, of a question and answers of these `sizes`."""
        count, total = len(sizes), sum(sizes)
        readings = self._readings(count)
        return len(readings) * question + sum(total * share for share in readings) // max(1, count)

    def _readings(self, count: int) -> list[int]:
        """For each call, how many answers it reads."""
        found = [count] if "analysis" in self.want else []
        found += [1] * count if "scores" in self.want else []
        found += [2] * (count * (count - 1)) if "preference" in self.want else []
        return found + ([count] * min(count, MAX_ORDERS) if self.ranked_by == "choice" else [])


@dataclass(frozen=True, slots=True)
class Grade:
    """The points of one answer by one criterion, and why."""

    criterion: Criterion
    points: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shares:
    """One call that chose: the answers in the order in which they stood, each with its probability."""

    by_name: Mapping[str, float]

    @property
    def preferred(self) -> str | None:
        """The most probable one; None if several are."""
        best = max(self.by_name.values())
        names = [name for name, share in self.by_name.items() if share == best]
        return names[0] if len(names) == 1 else None


@dataclass(frozen=True, slots=True)
class Preference:
    """Two answers, as the judge chose between them in both orders."""

    names: tuple[str, str]
    orders: tuple[Shares, Shares]

    @property
    def preferred(self) -> str | None:
        """None for a tie: the orders disagree, or one has no preference."""
        first, second = (order.preferred for order in self.orders)
        return first if first == second else None

    @property
    def probability(self) -> float:
        """The mean probability of the first of the two."""
        return sum(order.by_name[self.names[0]] for order in self.orders) / 2


@dataclass(frozen=True, slots=True)
class Ranked:
    """The place of one answer, from 1; equal ones share it. `value` is what it is ranked by, 0 to 1."""

    name: str
    rank: int
    value: float


@dataclass(frozen=True, slots=True)
class Missing:
    """What the judge did not give: a part of the judgement, of these answers, and why."""

    part: Want
    names: Sequence[str]
    reason: str
    error: str


@dataclass(frozen=True, slots=True)
class PartlyRead:
    """An answer that did not fit into the judge's context, for this part."""

    part: Want
    shortened: Shortened


@dataclass(frozen=True, slots=True)
class Judgement:
    """What came of it; `choices` are all calls that chose, by which the judge's bias for a place shows."""

    task: JudgeTask
    answers: Sequence[Answer]
    analysis: Analysis | None
    grades: Mapping[str, Sequence[Grade]]
    preferences: Sequence[Preference]
    ranking: Sequence[Ranked]
    choices: Sequence[Shares]
    missing: Sequence[Missing]
    shortened: Sequence[PartlyRead]


def rank(values: Mapping[str, float]) -> list[Ranked]:
    """Best first; equal ones have one place, and the next after them leaves out as many."""
    return [
        Ranked(name, 1 + sum(other > value for other in values.values()), value)
        for name, value in sorted(values.items(), key=lambda each: -each[1])
    ]
