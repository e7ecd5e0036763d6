"""An evaluation as one HTML file with its plots in it: no script, and nothing that is loaded from elsewhere."""

from collections.abc import Sequence
from html import escape

from cappella.bench.report import circumstances
from cappella.evaluation import charts
from cappella.evaluation.report import Report, tables

STYLE = """
:root { color-scheme: light dark; --ink: #1d1d1f; --paper: #fff; --faint: #8884; --run: #0a6; --member: #36c; --own: #888; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e6e6; --paper: #16181c; --run: #3c9; --member: #7af; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem; margin: 2rem auto;
  padding: 0 1rem; }
.verdict { font-size: 1.25rem; border-left: 4px solid var(--run); padding-left: 1rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .25rem .6rem; border-bottom: 1px solid var(--faint); white-space: nowrap; }
svg { width: 100%; max-width: 60rem; height: auto; font-size: 12px; }
svg text { fill: var(--ink); }
.grid, .frame { stroke: var(--faint); fill: none; }
.bar { stroke: var(--ink); stroke-width: 2; opacity: .5; }
.run, .counted, .part { fill: var(--run); }
.member { fill: var(--member); }
.reference { fill: var(--own); }
.chosen { fill: var(--member); }
.right { fill: var(--run); }
dt { font-weight: 600; }
dd { margin: 0 0 .4rem 0; }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(report: Report) -> str:
    """The whole file."""
    lines = report.findings.lines
    body = [
        "<h1>Does the ensemble help?</h1>",
        f'<p class="verdict">{escape(report.verdict.text)}</p>',
        charts.accuracies(lines),
        charts.cost([line for line in lines if line.kind != "part"]),
    ]
    for title, columns, rows in tables(report):
        body += [f"<h2>{escape(title)}</h2>", _table(columns, rows)]
    body += [charts.letters(each) for each in report.choices]
    body += ["<h2>How it was measured</h2>", _about({**report.about, **_circumstances()}), _problems(report)]
    head = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'
    size = '<meta name="viewport" content="width=device-width, initial-scale=1">'
    title = "<title>Cappella: does the ensemble help?</title>"
    return f'<!doctype html>\n<html lang="en"><head>{head}{size}{title}<style>{STYLE}</style></head><body>{"".join(body)}</body></html>\n'


def _circumstances() -> dict[str, str]:
    return {name: str(value) for name, value in circumstances().items()}


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in columns)
    lines = "".join("<tr>" + "".join(f"<td>{escape(each)}</td>" for each in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{lines}</tbody></table></div>'


def _about(facts: dict[str, str]) -> str:
    return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{escape(value)}</dd>' for name, value in facts.items())}</dl>"


def _problems(report: Report) -> str:
    if not report.findings.problems:
        return ""
    listed = "".join(f"<li>{escape(text)}: {count} times</li>" for text, count in report.findings.problems.items())
    return f"<h2>Questions without an answer</h2><ul>{listed}</ul>"
