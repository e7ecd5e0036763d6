"""A run's timeline: prefill and decoding of each call, and the run's time compared with its floor."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console, ConsoleOptions, Group, RenderResult
from rich.table import Table
from rich.text import Text

from cappella.cli.client.durations import duration
from cappella.cli.client.http import Json
from cappella.cli.client.text import clipped

READS, WRITES, READS_EARLY, FLOOR = "░", "█", "▒", "▔"
LABEL_WIDTH = 24
MIN_CELLS, MAX_CELLS = 10, 60
MIN_MS = 20.0
WHAT = {
    "gate": "{} gates",
    "single": "{} alone",
    "lookup": "{} looks up",
    "panel": "{}",
    "prefill": "{} reads early",
    "review": "{} ranks",
    "agreement": "{} sees if all agree",
    "analysis": "{} compares",
    "choice": "{} chooses",
    "score": "{} scores",
    "fold": "{} joins the first answers",
    "final": "{} answers",
}
STYLES = {READS: "yellow", WRITES: "green", READS_EARLY: "magenta", FLOOR: "dim"}


@dataclass(slots=True)
class Row:
    """One line: stretches of time, each with its start, end and glyph, in milliseconds."""

    label: str
    figures: str
    stretches: list[tuple[float, float, str]] = field(default_factory=list)


class Waterfall:
    """A run's calls over its duration. `fusion` and `usage` are the reply's."""

    def __init__(self, fusion: Json, usage: Json) -> None:
        self._timings = fusion["timings"]
        calls = sorted(usage["fusion_details"], key=lambda call: float(call["start_ms"]))
        # The calls' clock starts with the first of them; the time before is the gateway's.
        self._total_ms = max([self._timings["total_ms"], *(each["start_ms"] + each["ms"] for each in calls)])
        self._reads_early = any(call["role"] == "prefill" for call in calls)
        self._rows = [*_rows(calls), self._floor()]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        label_width = min(LABEL_WIDTH, max(len(row.label) for row in self._rows))
        figures_width = max(len(row.figures) for row in self._rows)
        cells = max(MIN_CELLS, min(MAX_CELLS, options.max_width - label_width - figures_width - 2))
        grid = Table.grid(padding=(0, 1, 0, 0))
        grid.add_column(width=label_width, no_wrap=True)
        grid.add_column(width=cells, no_wrap=True)
        grid.add_column(no_wrap=True, style="dim", overflow="ellipsis")
        for row in self._rows:
            grid.add_row(clipped(row.label, label_width), self._bar(row, cells), row.figures)
        yield Group(grid, Text(self._legend(), "dim"))

    def _bar(self, row: Row, cells: int) -> Text:
        line = [" "] * cells
        for begin_ms, end_ms, glyph in row.stretches:
            begin = min(cells - 1, int(cells * begin_ms / self._total_ms))
            # Every stretch is at least one cell wide.
            end = max(begin + 1, min(cells, round(cells * end_ms / self._total_ms)))
            line[begin:end] = glyph * (end - begin)
        return Text.assemble(*((glyph, STYLES.get(glyph, "")) for glyph in line))

    def _floor(self) -> Row:
        floor_ms = self._timings["floor_ms"]
        times = f", the run took {self._timings['total_ms'] / floor_ms:.2f}x" if floor_ms else ""
        return Row("floor", f"{_seconds(floor_ms)}{times}", [(0.0, floor_ms, FLOOR)])

    def _legend(self) -> str:
        timings = self._timings
        early = f", {READS_EARLY} reads while others write" if self._reads_early else ""
        words = [f"{READS} reads + {WRITES} writes{early}"]
        if tokens := timings["early_prefill_tokens"]:
            words.append(
                f"{tokens} tokens of the judge's prompt were read early, {timings['late_prefill_tokens']} late"
            )
        words.append(f"{_seconds(timings['overhead_ms'])} without an engine at work")
        return "\n".join(words)


def _rows(calls: Sequence[Json]) -> list[Row]:
    """One row per call; early prefills share one."""
    rows: list[Row] = []
    early: Row | None = None
    for call in calls:
        if call["role"] != "prefill":
            rows.append(Row(_label(call), _figures(call), _stretches(call)))
        elif early is None:
            early = Row(_label(call), "", _stretches(call))
            rows.append(early)
        else:
            early.stretches += _stretches(call)
    if early:
        count = len(early.stretches)
        early.figures = f"{count} {'call' if count == 1 else 'calls'}, off the critical path"
    return rows


def _stretches(call: Json) -> list[tuple[float, float, str]]:
    begin_ms = float(call["start_ms"])
    end_ms = begin_ms + float(call["ms"])
    if call["role"] == "prefill":
        return [(begin_ms, end_ms, READS_EARLY)]
    if call["first_token_ms"] is None:
        return [(begin_ms, end_ms, READS)]
    first_ms = begin_ms + float(call["first_token_ms"])
    return [(begin_ms, first_ms, READS), (first_ms, end_ms, WRITES)]


def _label(call: Json) -> str:
    return WHAT.get(call["role"], "{} " + str(call["role"])).format(call["model"])


def _figures(call: Json) -> str:
    """Time to read, time to write, tokens, and tokens per second."""
    if call["first_token_ms"] is None:
        return f"{_seconds(call['ms'])}, no tokens"
    writes_ms = call["ms"] - call["first_token_ms"]
    tokens = call["completion_tokens"]
    # The first token belongs to the reading; tokens that arrive in one burst have no speed.
    rate = f", {1000 * (tokens - 1) / writes_ms:.0f}/s" if writes_ms >= MIN_MS else ""
    return f"{_seconds(call['first_token_ms'])} + {_seconds(writes_ms)}, {tokens} tok{rate}"


def _seconds(milliseconds: float) -> str:
    return f"{milliseconds:.0f} ms" if milliseconds < 1000 else duration(milliseconds / 1000)
