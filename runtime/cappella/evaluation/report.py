"""An evaluation as JSON and as tables on a terminal."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import orjson
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cappella.bench.report import circumstances
from cappella.errors import ConfigError
from cappella.evaluation.findings import Findings, Group, Line
from cappella.evaluation.judging import Choices, Turned
from cappella.evaluation.statistics import Comparison, Interval
from cappella.evaluation.verdict import Verdict, percent, points
from cappella.types import Json


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is shown. `about` says what was asked, of whom, and how the best member was chosen."""

    about: dict[str, str]
    verdict: Verdict
    findings: Findings
    turned: Sequence[Turned]
    choices: Sequence[Choices]
    questions: Sequence[Json]

    def as_json(self) -> Json:
        findings = self.findings
        return {
            **circumstances(),
            "about": self.about,
            "verdict": asdict(self.verdict),
            "lines": [asdict(line) for line in findings.lines],
            "seats": [asdict(seat) for seat in findings.seats],
            "best": findings.best,
            "contested": findings.contested,
            "by_lot": findings.by_lot,
            "judge": {
                "turned": [asdict(each) for each in self.turned],
                "choices": [asdict(each) for each in self.choices],
            },
            "problems": findings.problems,
            "questions": list(self.questions),
        }


def write(path: Path, text: bytes | str) -> None:
    """Raises ConfigError for a file that cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    except OSError as error:
        raise ConfigError(str(path), f"cannot be written ({error})", "Name a file in a folder of yours") from error


def json_text(report: Report) -> bytes:
    return orjson.dumps(report.as_json(), option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS)


def show(report: Report, console: Console) -> None:
    """Prints the verdict and the tables."""
    console.print(escape(report.verdict.text), soft_wrap=True)
    console.print()
    for title, columns, rows in tables(report):
        shown = [i for i, name in enumerate(columns) if console.width >= WIDE or name not in ONLY_WIDE]
        table = Table(*(columns[i] for i in shown), title=title, title_justify="left")
        for row in rows:
            table.add_row(*(escape(row[i]) for i in shown))
        console.print(table)
    for problem, count in report.findings.problems.items():
        console.print(f"no answer, {count} times: {problem}", soft_wrap=True, markup=False)


Rows = list[list[str]]


def tables(report: Report) -> list[tuple[str, list[str], Rows]]:
    """Title, columns and rows of each table; those without rows are left out. The page shows the same."""
    made = [
        ("Ways", WAYS, [_way(line) for line in report.findings.lines]),
        ("By category", *_by_category(report.findings.lines)),
        ("Leave one out", SEATS, _seats(report.findings)),
        ("What the judge did with the panel's answers", TURNED, [_turned(each) for each in report.turned]),
        ("Where the chosen answers stood", PLACES, _places(report.choices)),
        ("Whose answers were chosen", AUTHORS, _authors(report.choices)),
    ]
    return [each for each in made if each[2]]


WAYS = (
    "way|right|n|failed|unread|against the best member|p (Holm)|best member at equal tokens|p|contested|uncontested"
    "|tokens|s|tokens / right|s / right"
).split("|")
ONLY_WIDE = ("n", "failed", "unread", "contested", "uncontested", "tokens / right", "s / right")
WIDE = 190
"""The width of a terminal from which on all columns are shown; the files have all of them."""
SEATS = "member|in|right with it|without it|difference|p|advice".split("|")
TURNED = "way|all right: spoilt|some right: missed|none right: saved|best right, it wrong|best wrong, it right|degraded".split(
    "|"
)
PLACES = "way|letter|shown|chosen|right there|mean probability|uneven by chance (p)".split("|")
AUTHORS = "way|member|shown|chosen|right|chosen wrong though another was right".split("|")


def _way(line: Line) -> list[str]:
    return [
        line.name,
        _interval(line.accuracy),
        str(line.n),
        str(line.failed or ""),
        str(line.unread or ""),
        _comparison(line.against_best),
        probability(_p(line.against_best) if line.p_holm is None else line.p_holm),
        f"{percent(line.consistency.mean)} ({line.consistency_samples} answers)" if line.consistency else "",
        probability(_p(line.against_consistency)),
        _group(line.contested),
        _group(line.uncontested),
        f"{line.tokens:.0f}",
        f"{line.seconds:.2f}",
        "" if line.tokens_per_right is None else f"{line.tokens_per_right:.0f}",
        "" if line.seconds_per_right is None else f"{line.seconds_per_right:.2f}",
    ]


def _by_category(lines: Sequence[Line]) -> tuple[list[str], Rows]:
    names = list(dict.fromkeys(name for line in lines for name in line.categories))
    rows = [[line.name, *(_group(line.categories.get(name)) for name in names)] for line in lines if names]
    return ["way", *(name or "(none)" for name in names)], rows


def _seats(findings: Findings) -> Rows:
    with_it = {line.name: line.accuracy.mean for line in findings.lines}
    return [
        [
            seat.member,
            seat.way,
            percent(with_it.get(seat.way, 0.0)),
            percent(seat.without),
            _comparison(seat.difference),
            probability(seat.difference.p),
            seat.advice,
        ]
        for seat in findings.seats
    ]


def _turned(each: Turned) -> list[str]:
    return [
        each.way,
        f"{each.all_right_spoilt} of {each.all_right}",
        f"{each.some_right_missed} of {each.some_right}",
        f"{each.none_right_saved} of {each.none_right}",
        str(each.right_to_wrong),
        str(each.wrong_to_right),
        str(each.degraded or ""),
    ]


def _places(all_choices: Sequence[Choices]) -> Rows:
    return [
        [
            each.way,
            place.letter,
            str(place.shown),
            str(place.chosen),
            str(place.right),
            "" if place.probability is None else f"{place.probability:.2f}",
            probability(each.place_p) if place is each.places[0] else "",
        ]
        for each in all_choices
        for place in each.places
    ]


def _authors(all_choices: Sequence[Choices]) -> Rows:
    return [
        [
            each.way,
            f"{author.member} (the judge itself)" if author.is_judge else author.member,
            str(author.shown),
            str(author.chosen),
            str(author.right),
            str(author.chosen_wrong),
        ]
        for each in all_choices
        for author in each.authors
    ]


def _interval(value: Interval) -> str:
    return f"{percent(value.mean)} ({100 * value.low:.0f}-{100 * value.high:.0f})"


def _comparison(value: Comparison | None) -> str:
    if value is None:
        return ""
    bounds = f"{100 * value.difference.low:+.0f} to {100 * value.difference.high:+.0f}"
    return f"{points(value.difference.mean)} ({bounds}), {value.wins} won, {value.losses} lost"


def _p(value: Comparison | None) -> float | None:
    return None if value is None else value.p


def _group(group: Group | None) -> str:
    return "" if group is None else f"{percent(group.accuracy)} of {group.n}"


def probability(value: float | None) -> str:
    """Three digits of it; nothing for None."""
    if value is None:
        return ""
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
