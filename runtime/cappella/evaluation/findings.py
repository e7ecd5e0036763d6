"""What the outcomes show: the figures of each way, its rivals, its categories, and each member's part."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import fmean

from cappella.errors import CappellaError
from cappella.evaluation import outcomes, ways
from cappella.evaluation.asking import mean_tokens
from cappella.evaluation.outcomes import Results, Row
from cappella.evaluation.statistics import LEVEL, Comparison, Interval, compare, holm, interval

BEST = "best member"
CONSISTENCY = "self-consistency"
MAJORITY = "majority"
ORACLE = "oracle"
MIN_ANSWERED = 0.9
"""The share of the questions that a way must have answered to be ranked."""


@dataclass(frozen=True, slots=True)
class Group:
    """The accuracy of a way on some of the questions."""

    n: int
    accuracy: float


@dataclass(slots=True)
class Line:
    """One way. `kind` is member, reference, counted or run; costs are means per question, of the questions answered.

    `consistency` is the best member at the tokens of this way: the majority of `consistency_samples` answers, whose tokens
    are `consistency_tokens`. `p_holm` is that of `against_best`, corrected for the number of ways that could win.
    """

    name: str
    kind: str
    n: int
    failed: int
    unread: int
    accuracy: Interval
    tokens: float
    written_tokens: float
    seconds: float
    tokens_per_right: float | None
    seconds_per_right: float | None
    contested: Group | None
    uncontested: Group | None
    categories: dict[str, Group]
    against_best: Comparison | None = None
    p_holm: float | None = None
    consistency_samples: int | None = None
    consistency_tokens: float | None = None
    consistency: Interval | None = None
    against_consistency: Comparison | None = None

    @property
    def asked(self) -> int:
        return self.n + self.failed

    @property
    def right_of_all(self) -> float:
        """The accuracy if a missing answer is wrong."""
        return self.accuracy.mean * self.n / self.asked

    @property
    def is_ranked(self) -> bool:
        """Whether it answered enough questions for a verdict."""
        return self.n >= MIN_ANSWERED * self.asked


@dataclass(frozen=True, slots=True)
class Seat:
    """What a way loses without a member: `keep`, `drop`, or `undecided` with so few questions. `costs_calls` if it was asked anew."""

    member: str
    way: str
    without: float
    difference: Comparison
    advice: str


@dataclass(slots=True)
class Findings:
    """All figures of an evaluation. `rows` are the outcomes by way; `best` counts for how many questions a member was the best."""

    lines: list[Line]
    seats: list[Seat]
    best: dict[str, int]
    contested: int
    by_lot: float
    problems: dict[str, int]
    rows: dict[str, Row] = field(default_factory=dict)

    def line(self, name: str) -> Line:
        return next(line for line in self.lines if line.name == name)

    def compared(self, name: str, other: str) -> Comparison | None:
        """Two ways on the questions that both answered."""
        return compare(_right(self.rows[name]), _right(self.rows[other]))

    @property
    def runs(self) -> list[Line]:
        """The lines of the ways that could be chosen: the ensemble's, and a vote that is counted."""
        return [line for line in self.lines if line.kind in ("run", "counted")]


def find(results: Results) -> Findings:
    """The figures. Raises CappellaError if there is no answer of the best member."""
    rows, kinds = _rows(results)
    if not any(rows[BEST]):
        first = next(iter(results.problems), "nothing was asked")
        raise CappellaError(f"No member answered: {first}")
    lines = [line for name, row in rows.items() if (line := _line(results, name, kinds[name], row))]
    findings = Findings(
        lines=lines,
        seats=_seats(results, rows),
        best={name: results.best.count(name) for name in dict.fromkeys(results.best)},
        contested=sum(results.contested),
        by_lot=_by_lot(results),
        problems=dict(results.problems.most_common()),
        rows=rows,
    )
    for line in lines:
        if line.kind != "member" and line.name != BEST:
            line.against_best = compare(_right(rows[line.name]), _right(rows[BEST]))
    _compare_at_equal_tokens(results, findings)
    corrected = holm({line.name: line.against_best.p for line in findings.runs if line.against_best})
    for line in findings.runs:
        line.p_holm = corrected.get(line.name)
    return findings


def _rows(results: Results) -> tuple[dict[str, Row], dict[str, str]]:
    """Every way's outcomes, in the order of the report, and its kind."""
    count = range(len(results.questions))
    panels = [outcomes.panel_of(results, i) for i in count]
    rows: dict[str, Row] = dict(results.members)
    kinds = dict.fromkeys(rows, "member")
    rows[BEST] = [results.members[name][i] for i, name in enumerate(results.best)]
    rows[CONSISTENCY] = [outcomes.majority(results.samples[i]) for i in count]
    rows[MAJORITY] = [outcomes.majority(panel) for panel in panels]
    kinds |= {BEST: "reference", CONSISTENCY: "reference", MAJORITY: "counted", ORACLE: "reference"}
    for name, row in results.ways.items():
        rows[name], kinds[name] = row, "reference" if name == ways.JUDGE else "run"
    for name in results.ways:
        if " without " in name:
            kinds[name] = "part"
    rows[ORACLE] = [outcomes.oracle(panel) for panel in panels]
    return rows, kinds


def _line(results: Results, name: str, kind: str, row: Row) -> Line | None:
    there = [each for each in row if each is not None]
    accuracy = interval([float(each.right) for each in there])
    if accuracy is None:
        return None
    right = sum(each.right for each in there)
    tokens, seconds = fmean(each.tokens for each in there), fmean(each.seconds for each in there)
    names = [question.category for question in results.questions]
    groups = {category: _group(row, [each == category for each in names]) for category in dict.fromkeys(names)}
    return Line(
        name=name,
        kind=kind,
        n=len(there),
        failed=len(row) - len(there),
        unread=sum(each.unread for each in there),
        accuracy=accuracy,
        tokens=tokens,
        written_tokens=fmean(each.written_tokens for each in there),
        seconds=seconds,
        tokens_per_right=tokens * len(there) / right if right else None,
        seconds_per_right=seconds * len(there) / right if right else None,
        contested=_group(row, results.contested),
        uncontested=_group(row, [not each for each in results.contested]),
        categories={category: group for category, group in groups.items() if group and len(groups) > 1},
    )


def _group(row: Row, chosen: Sequence[bool]) -> Group | None:
    there = [each.right for each, is_in in zip(row, chosen, strict=True) if is_in and each is not None]
    return Group(len(there), sum(there) / len(there)) if there else None


def _right(row: Row) -> list[bool | None]:
    return [None if each is None else each.right for each in row]


def _compare_at_equal_tokens(results: Results, findings: Findings) -> None:
    """Sets against each way the majority of as many answers of the best member as cost the same, to the nearest answer."""
    per_sample = mean_tokens([each for samples in results.samples for each in samples])
    most = max((len(samples) for samples in results.samples), default=0)
    if not per_sample:
        return
    for line in findings.runs:
        count = max(1, min(most, round(line.tokens / per_sample)))
        row = [outcomes.majority(samples[:count]) for samples in results.samples]
        line.consistency_samples, line.consistency_tokens = count, mean_tokens(row)
        line.consistency = interval([float(each.right) for each in row if each is not None])
        line.against_consistency = compare(_right(findings.rows[line.name]), _right(row))


def _seats(results: Results, rows: dict[str, Row]) -> list[Seat]:
    """For each member, what is lost without it: in the majority and the oracle, and in runs that were asked without it."""
    if len(results.names) < 2:
        return []
    found: list[Seat] = []
    count = range(len(results.questions))
    for name in results.names:
        panels = [outcomes.panel_of(results, i, without=name) for i in count]
        parts: dict[str, Row] = {
            MAJORITY: [outcomes.majority(panel) for panel in panels],
            ORACLE: [outcomes.oracle(panel) for panel in panels],
        }
        asked = {key.partition(" without ")[0]: row for key, row in rows.items() if key.endswith(f" without {name}")}
        for way, row in (parts | asked).items():
            comparison = compare(_right(rows[way]), _right(row))
            if comparison:
                without = fmean(each.right for each in row if each is not None)
                found.append(Seat(name, way, without, comparison, _advice(comparison)))
    return found


def _advice(with_member: Comparison) -> str:
    if with_member.p >= LEVEL:
        return "undecided"
    return "keep" if with_member.wins > with_member.losses else "drop"


def _by_lot(results: Results) -> float:
    """The accuracy of an answer drawn from the panel's by lot."""
    panels = [outcomes.panel_of(results, i) for i in range(len(results.questions))]
    shares = [fmean(each.right for each in panel) for panel in panels if panel]
    return fmean(shares) if shares else 0.0
