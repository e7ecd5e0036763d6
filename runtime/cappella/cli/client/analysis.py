"""The judge's analysis on a terminal: consensus, contradictions, partial coverage, unique insights, blind spots."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from cappella.cli.client.http import Json
from cappella.cli.client.text import safe

STANCE_WIDTH = 24
"""Stances stand below each other where columns would be narrower."""


class AnalysisBlock:
    """An analysis, complete or still being written; empty parts have no heading."""

    def __init__(self, analysis: Json) -> None:
        self._analysis = analysis

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        for heading, lines in self._parts(options.max_width):
            yield Text(heading, "bold")
            yield Padding(Group(*lines), (0, 0, 0, 2))

    def _parts(self, width: int) -> Iterator[tuple[str, list[RenderableType]]]:
        analysis = self._analysis
        if consensus := analysis.get("consensus"):
            yield "All agree", [_line(each) for each in consensus]
        if differing := analysis.get("contradictions"):
            yield "They differ", [part for each in differing for part in _contradiction(each, width - 2)]
        if alone := analysis.get("unique_insights"):
            yield "Only one says", [_line(each.get("insight"), each.get("model")) for each in alone]
        if partly := analysis.get("partial_coverage"):
            yield "Some cover", [_line(each.get("point"), ", ".join(each.get("models", ()))) for each in partly]
        if gaps := analysis.get("blind_spots"):
            yield "Nobody covers", [_line(each) for each in gaps]


def _line(text: object, member: object = None) -> RenderableType:
    name = [(f"{safe(str(member))}: ", "cyan")] if member else []
    return Text.assemble(("• ", "dim"), *name, safe(str(text or "…")))


def _contradiction(contradiction: Json, width: int) -> Iterator[RenderableType]:
    """The stances side by side where there is room."""
    yield Text(safe(str(contradiction.get("topic") or "…")), "italic")
    stances = [(str(each.get("model", "")), str(each.get("stance", ""))) for each in contradiction.get("stances", ())]
    if not stances or width // len(stances) < STANCE_WIDTH:
        yield from (_line(stance, member) for member, stance in stances)
        return
    table = Table(box=None, pad_edge=False, expand=True, header_style="cyan")
    for member, _ in stances:
        table.add_column(Text(safe(member)), ratio=1)
    table.add_row(*(Text(safe(stance)) for _, stance in stances))
    yield table


def begun(text: str, labels: Mapping[str, str]) -> Json:
    """The judge's unfinished JSON with names instead of letters; empty while none of it can be parsed."""
    while text:
        try:
            value = json.loads(text + _closing(text))
        except ValueError:
            # Drop the incomplete end: a key without its value, half a literal.
            text = text[: max(text.rfind(","), text.rfind("{"), text.rfind("["), 0)]
            continue
        return _with_names(value, labels) if isinstance(value, dict) else {}
    return {}


def _with_names(value: Any, labels: Mapping[str, str]) -> Any:
    """The same with names in `model` and `models`."""
    if isinstance(value, list):
        return [_with_names(item, labels) for item in value]
    if not isinstance(value, dict):
        return value
    named = {key: _with_names(item, labels) for key, item in value.items()}
    if "model" in value:
        named["model"] = labels.get(value["model"], value["model"])
    if "models" in value:
        named["models"] = [labels.get(label, label) for label in value["models"]]
    return named


def _closing(text: str) -> str:
    """The characters that close every open string, list and object."""
    open_ends: list[str] = []
    in_string = escaped = False
    for each in text:
        if in_string:
            in_string, escaped = escaped or each != '"', each == "\\" and not escaped
        elif each == '"':
            in_string = True
        elif each in "{[":
            open_ends.append("}" if each == "{" else "]")
        elif each in "}]" and open_ends:
            open_ends.pop()
    tail = ("\\" if escaped else "") + '"' if in_string else ""
    return tail + "".join(reversed(open_ends))
