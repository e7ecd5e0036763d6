"""Three sentences for people who decide: what won, whether the same tokens do as well without a panel, and what to do."""

from collections.abc import Sequence
from dataclasses import dataclass

from cappella.evaluation.findings import BEST, MAJORITY, Findings, Line
from cappella.evaluation.statistics import LEVEL, Comparison, questions_to_decide
from cappella.evaluation.ways import JUDGE

USE, SAMPLE, JUDGE_ALONE, NONE, UNDECIDED = "use", "sample", "judge", "none", "undecided"


@dataclass(frozen=True, slots=True)
class Verdict:
    """`advice`: `use` the ensemble by `way`, `sample` the best member, ask the `judge` alone, use `none`, or `undecided`."""

    advice: str
    way: str | None
    sentences: tuple[str, str, str]

    @property
    def text(self) -> str:
        return " ".join(self.sentences)


def verdict(findings: Findings) -> Verdict:
    """The verdict on the way of the ensemble that is right most often; of equal ones, the one with fewer tokens.

    A missing answer is a wrong one there, and a way that answered less than 90% of the questions is not ranked.
    """
    best = findings.line(BEST)
    left_out = [line for line in findings.lines if not line.is_ranked and (line in findings.runs or line.name == JUDGE)]
    candidates = [line for line in findings.runs if line.against_best and line.is_ranked]
    if not candidates:
        no_way = (
            "No way of the ensemble answered enough of them." if left_out else "No way of the ensemble gave an answer."
        )
        return Verdict(UNDECIDED, None, (_first(None, best, left_out), no_way, "Nothing can be said."))
    top = max(candidates, key=lambda line: (line.right_of_all, -line.tokens))
    advice = JUDGE_ALONE if _judge_leads(findings, top) else _advice(top)
    return Verdict(advice, top.name, (_first(top, best, left_out), _second(top), _third(top, advice)))


def _judge_leads(findings: Findings, top: Line) -> bool:
    """Whether the judge alone is no worse than this way and the best member, each on the questions that both answered."""
    alone = next((line for line in findings.lines if line.name == JUDGE), None)
    if alone is None or not alone.is_ranked:
        return False
    against = [findings.compared(JUDGE, other) for other in (top.name, BEST)]
    return all(each is not None and each.difference.mean >= 0 for each in against)


def _advice(top: Line) -> str:
    against, equal = top.against_best, top.against_consistency
    if against is None or _is_worse(against):
        return NONE
    gains = (top.p_holm if top.p_holm is not None else 1.0) < LEVEL and against.difference.mean > 0
    if not gains:
        gained_by_samples = top.consistency is not None and equal is not None and _is_worse(equal)
        if gained_by_samples:
            return SAMPLE
        return NONE if against.difference.high < 0.02 or against.difference.mean <= 0 else UNDECIDED
    if equal is None or equal.difference.low > 0 or (equal.p < LEVEL and equal.difference.mean > 0):
        return USE
    return SAMPLE if equal.difference.mean <= 0 else UNDECIDED


def _is_worse(comparison: Comparison) -> bool:
    return comparison.p < LEVEL and comparison.difference.mean < 0


def _first(top: Line | None, best: Line, left_out: Sequence[Line]) -> str:
    not_ranked = ", ".join(f"{line.name} ({line.n} of {line.asked})" for line in left_out)
    end = f"; not ranked, as too little was answered: {not_ranked}." if left_out else "."
    if top is None or top.against_best is None:
        return f"On {best.n} questions the best member alone was right in {percent(best.accuracy.mean)}{end}"
    pairs = top.against_best
    on = (
        f"{pairs.n} questions"
        if pairs.n == best.asked
        else f"the {pairs.n} of {best.asked} questions that both answered"
    )
    bounds = f"{points(pairs.difference.low)} to {points(pairs.difference.high)} points"
    shares = f"was right in {percent(pairs.ours)} and the best member alone in {percent(pairs.theirs)}"
    return f"On {on} {named(top.name)} {shares} (95%: {bounds}){end}"


def _second(top: Line) -> str:
    equal = top.against_consistency
    if equal is None or top.consistency is None:
        return "It was not compared with the best member at equal tokens."
    many = top.consistency_samples != 1
    count = (
        f"{top.consistency_samples} answers of the best member with a vote were"
        if many
        else "one more answer of the best member was"
    )
    share = (top.consistency_tokens or 0) / top.tokens if top.tokens else 1.0
    cost = "At about the same tokens" if 0.8 <= share <= 1.25 else f"For {100 * share:.0f}% of its tokens"
    said = f"{cost} {count} right in"
    sure = "a clear difference" if equal.p < LEVEL else "no clear difference"
    return f"{said} {percent(equal.theirs)}: {sure}."


def _third(top: Line, advice: str) -> str:
    match advice:
        case "use":
            return f"Use {named(top.name)} for questions like these."
        case "sample":
            return "Do not use an ensemble for this: several answers of the best member with a vote did as well or better here."
        case "judge":
            return "Do not use an ensemble for this: the judge's model alone did as well or better here."
        case "none":
            return (
                "Do not use an ensemble for this: the best member alone did as well or better here, for fewer tokens."
            )
    needed = max((each for each in (_needed(top.against_best), _needed(top.against_consistency)) if each), default=None)
    more = f": about {needed} questions would decide" if needed else ""
    if top.against_best and top.against_best.p < LEVEL:
        return f"It beats the best member, but not clearly what the same tokens give without a panel{more}."
    return f"These questions are too few to say whether an ensemble helps{more}."


def _needed(comparison: Comparison | None) -> int | None:
    """How many questions would decide what is not decided yet."""
    return questions_to_decide(comparison) if comparison and comparison.p >= LEVEL else None


def named(way: str) -> str:
    return "a majority vote of the panel" if way == MAJORITY else f"the ensemble with {way}"


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def points(share: float) -> str:
    return f"{100 * share:+.1f}"
