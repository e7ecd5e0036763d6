"""The panel at work, fitted to the screen: a pane per member, the judge's progress, and a status line."""

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from cappella.cli.client.analysis import AnalysisBlock, begun
from cappella.cli.client.durations import duration
from cappella.cli.client.text import clipped, safe, tail
from cappella.run_view import Member, View

COLUMN_WIDTH = 36
"""The least width for members side by side."""
BODY_LINES = 12
STYLES = {
    "asked": "dim",
    "waking": "dim",
    "queued": "dim",
    "writing": "cyan",
    "done": "green",
    "failed": "red",
    "cancelled": "yellow",
}
SPINNER = "⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"
SPINS_PER_S = 10


class Panes:
    """A view as it is now, never higher than the screen."""

    def __init__(self, view: View) -> None:
        self._view = view

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        view, width = self._view, options.max_width
        rows = max(1, console.height - 2)
        if view.awaited or view.analysis_at is None:
            yield _members(console, view, width, rows)
        else:
            heads = _heads(view, width, max(1, rows // 2))
            yield heads
            yield _analysis(console, options, view, rows - len(heads.renderables))
        yield status(view)


class Writing:
    """The unfinished line of the answer, and below it the analysis if the judge writes both at once."""

    def __init__(self, view: View, line: str) -> None:
        self._view = view
        self._line = line

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield Text(self._line)
        if self._view.analysis_at and not self._view.analysis:
            yield _analysis(console, options, self._view, max(1, console.height // 2))
        yield status(self._view)


def status(view: View) -> Text:
    """The run's current step, and how long it has taken."""
    now = view.clock()
    turn = SPINNER[int(now * SPINS_PER_S) % len(SPINNER)]
    return Text(f"{turn} {_doing(view, now)}", "dim", no_wrap=True, overflow="ellipsis")


def head(view: View, member: Member, width: int) -> Text:
    """A member's name and state on one line."""
    state = clipped(_state(view, member), max(8, width - len(member.name) - 8))
    name = f"── {safe(member.name)} "
    fill = "─" * max(1, width - len(name) - len(state) - 2)
    style = STYLES[member.state]
    return Text.assemble((name, f"bold {style}"), (fill, "dim"), (f" {state}", style), no_wrap=True)


def _doing(view: View, now: float) -> str:
    if view.answer_at:
        writer = view.alone or view.judge or view.model
        pace = _per_s(view.answer_pieces, now - view.answer_at)
        return f"{writer} writes, about {view.answer_pieces} tokens{pace}"
    if awaited := view.awaited:
        seconds = duration(now - min(view.members[name].asked_at for name in awaited))
        done = f", {len(view.members) - len(awaited)} of {len(view.members)} are done" if len(view.members) > 1 else ""
        again = f", round {view.round}" if view.round > 1 else ""
        late = _grace(view, now)
        return (
            f"waiting on {', '.join(awaited[:3])}{' and others' if awaited[3:] else ''}, {seconds}{done}{again}{late}"
        )
    if reason := view.waits.get(view.alone or view.judge):
        does = "was asleep, and wakes" if reason == "asleep" else "waits for its turn"
        return f"{view.alone or view.judge} {does}, {duration(now - (view.judging_at or view.began_at))}"
    if view.thinking_at:
        return f"{view.alone or view.judge or view.model} thinks, {duration(now - view.thinking_at)}"
    if view.analysis_at and not view.analysis:
        return f"{view.judge} compares the answers, {duration(now - view.analysis_at)}"
    if view.judging_at:
        doing = f"{view.judge} reads the answers" if view.judge else "the answers are compared"
        return f"{doing}, {duration(now - view.judging_at)}"
    return f"waiting on {view.alone or view.model}, {duration(now - view.began_at)}"


def _grace(view: View, now: float) -> str:
    """When it is answered without those that are late; nothing while one of them waits for its engine."""
    late = [view.members[name] for name in view.awaited]
    if view.grace_ends_at is None or not all(member.is_at_work for member in late):
        return ""
    return f"; answer without {'them' if len(late) > 1 else 'it'} in {duration(max(0.0, view.grace_ends_at - now))}"


def _state(view: View, member: Member) -> str:
    now = view.clock()
    match member.state:
        case "waking":
            return f"was asleep, and wakes, {duration(now - member.asked_at)}"
        case "queued":
            return f"waits for its turn, {duration(now - member.asked_at)}"
        case "asked":
            return f"reads the question, {duration(now - member.asked_at)}"
        case "writing":
            assert member.first_at
            does = "writes" if member.text else "thinks"
            return f"{does}, about {member.pieces} tokens{_per_s(member.pieces, now - member.first_at)}"
        case "done":
            return f"{member.tokens} tokens, {duration(member.took_s or 0)}"
        case _:
            return member.problem


def _per_s(pieces: int, seconds: float) -> str:
    return f", {pieces / seconds:.0f}/s" if seconds > 1 else ""


def _members(console: Console, view: View, width: int, rows: int) -> RenderableType:
    members = list(view.members.values())
    if not members:
        return Group()
    if 1 < len(members) <= width // COLUMN_WIDTH:
        each = width // len(members) - 2
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in members:
            grid.add_column(width=each)
        grid.add_row(*(_pane(console, view, member, each, min(BODY_LINES, rows - 1)) for member in members))
        return grid
    body_lines = min(BODY_LINES, rows // len(members) - 1)
    if body_lines < 1:
        return _heads(view, width, rows)
    return Group(*(_pane(console, view, member, width, body_lines) for member in members))


def _pane(console: Console, view: View, member: Member, width: int, lines: int) -> RenderableType:
    return Group(head(view, member, width), tail(console, member.text, width, lines))


def _heads(view: View, width: int, rows: int) -> Group:
    """A line for each member; unfinished ones come first if there are too many."""
    members = sorted(view.members.values(), key=lambda member: not member.is_awaited)
    if len(members) <= rows:
        return Group(*(head(view, member, width) for member in view.members.values()))
    shown = [head(view, member, width) for member in members[: rows - 1]]
    return Group(*shown, Text(f"… and {len(members) - len(shown)} more", "dim"))


def _analysis(console: Console, options: ConsoleOptions, view: View, rows: int) -> RenderableType:
    """The last lines of the analysis so far."""
    block = AnalysisBlock(begun(view.analysis_text, view.labels))
    lines = console.render_lines(block, options, pad=False)[-max(1, rows) :]
    return Group(*(Text.assemble(*((each.text, each.style or "") for each in line), no_wrap=True) for line in lines))
