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
        found = self._analysis
        if said := found.get("consensus"):
            yield "All agree", [_line(each) for each in said]
        if differing := found.get("contradictions"):
            yield "They differ", [part for each in differing for part in _contradiction(each, width - 2)]
        if alone := found.get("unique_insights"):
            yield "Only one says", [_line(each.get("insight"), each.get("model")) for each in alone]
        if partly := found.get("partial_coverage"):
            yield "Some cover", [_line(each.get("point"), ", ".join(each.get("models", ()))) for each in partly]
        if gaps := found.get("blind_spots"):
            yield "Nobody covers", [_line(each) for each in gaps]


def _line(said: object, who: object = None) -> RenderableType:
    name = [(f"{safe(str(who))}: ", "cyan")] if who else []
    return Text.assemble(("• ", "dim"), *name, safe(str(said or "…")))


def _contradiction(found: Json, width: int) -> Iterator[RenderableType]:
    """The stances side by side where there is room."""
    yield Text(safe(str(found.get("topic") or "…")), "italic")
    stances = [(str(each.get("model", "")), str(each.get("stance", ""))) for each in found.get("stances", ())]
    if not stances or width // len(stances) < STANCE_WIDTH:
        yield from (_line(stance, who) for who, stance in stances)
        return
    table = Table(box=None, pad_edge=False, expand=True, header_style="cyan")
    for who, _ in stances:
        table.add_column(Text(safe(who)), ratio=1)
    table.add_row(*(Text(safe(stance)) for _, stance in stances))
    yield table


def begun(text: str, labels: Mapping[str, str]) -> Json:
    """The judge's unfinished JSON with names instead of letters; empty while none of it can be parsed."""
    while text:
        try:
            found = json.loads(text + _closing(text))
        except ValueError:
            # Drop the incomplete end: a key without its value, half a literal.
            text = text[: max(text.rfind(","), text.rfind("{"), text.rfind("["), 0)]
            continue
        return _named(found, labels) if isinstance(found, dict) else {}
    return {}


def _named(found: Any, labels: Mapping[str, str]) -> Any:
    """The same with names in `model` and `models`."""
    if isinstance(found, list):
        return [_named(each, labels) for each in found]
    if not isinstance(found, dict):
        return found
    named = {key: _named(value, labels) for key, value in found.items()}
    if "model" in found:
        named["model"] = labels.get(found["model"], found["model"])
    if "models" in found:
        named["models"] = [labels.get(each, each) for each in found["models"]]
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
