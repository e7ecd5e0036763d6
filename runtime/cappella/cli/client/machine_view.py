"""The machine on one screen: ensembles, engines, memory. Missing fields are left blank."""

import time
from collections.abc import Iterator, Mapping, Sequence

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from cappella.cli.client.durations import remaining
from cappella.cli.client.http import Json
from cappella.cli.client.text import clipped, safe

GIB = 1 << 30
KV_CELLS = 4
TROUBLED = ("failed", "unhealthy", "restarting")
TOLD_BY_ITS_STATE = ("ready", *TROUBLED)
MAX_TROUBLES = 5
STYLES = {
    "ready": "green",
    "asleep": "blue",
    "failed": "red",
    "unhealthy": "red",
    "down": "red",
    "restarting": "yellow",
}
COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red", "bright_cyan", "bright_magenta", "bright_green")
COUNTS = {"in_flight": "under way", "waiting": "waiting"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Machine:
    """One reply of `/api/machine`; `trouble` says why there is no newer one."""

    def __init__(self, reply: Json, url: str, trouble: str = "", is_for_screen: bool = False) -> None:
        self._reply = reply
        self._url = url
        self._trouble = trouble
        self._is_for_screen = is_for_screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        engines: Mapping[str, Json] = self._reply.get("engines") or {}
        above = [self._head(), *self._ensembles(), Text()]
        below = [*_troubles(engines), *self._tool_servers(), *self._memory(engines, options.max_width)]
        below += [Text("q ends", "dim")] if self._is_for_screen else []
        # One line for the table's heading, and one for the count of hidden engines.
        rows = max(1, console.height - len(above) - len(below) - 2) if self._is_for_screen else None
        yield Group(*above)
        yield _table(engines, rows, options.max_width)
        yield Group(*below)

    def _head(self) -> Text:
        reply = self._reply
        parts = [f"cappella {reply.get('version', '')}".strip(), self._url]
        if isinstance(reply.get("time"), int | float):
            parts.append(time.strftime("%H:%M:%S", time.localtime(reply["time"])))
        line = Text(" · ".join(parts), "bold", no_wrap=True, overflow="ellipsis")
        return Text.assemble(line, (f" · {self._trouble}", "red")) if self._trouble else line

    def _ensembles(self) -> Iterator[Text]:
        for name, each in (self._reply.get("ensembles") or {}).items():
            answers = ("answers", "green") if each.get("answers") else ("does not answer yet", "yellow")
            details = [f"{each[field]} {words}" for field, words in COUNTS.items() if field in each]
            details += [f"{', '.join(each['panel'])} → {each.get('judge') or 'no judge'}"] if each.get("panel") else []
            text = "".join(f" · {part}" for part in details)
            yield Text.assemble((f"cappella/{name} ", "bold"), answers, text, no_wrap=True, overflow="ellipsis")

    def _tool_servers(self) -> Iterator[Text]:
        for name, each in (self._reply.get("tool_servers") or {}).items():
            state = str(each.get("state", ""))
            told = each.get("problem") or f"{len(each.get('tools') or ())} tools, {each.get('calls', 0)} calls, "
            told += "" if each.get("problem") else f"{each.get('failed', 0)} failed"
            line = ((f"{safe(name)} ", "bold"), (state, STYLES.get(state, "yellow")), f" · {safe(told)}")
            yield Text.assemble(*line, no_wrap=True, overflow="ellipsis")

    def _memory(self, engines: Mapping[str, Json], width: int) -> Iterator[RenderableType]:
        devices: Sequence[Json] = self._reply.get("memory") or ()
        marks = {name: LETTERS[number % len(LETTERS)] for number, name in enumerate(engines)}
        colours = {name: COLOURS[number % len(COLOURS)] for number, name in enumerate(engines)}
        if not devices:
            return
        yield Text()
        for device in devices:
            yield _device(device, marks, colours, width)
        yield _legend(engines, devices, marks, colours)


def _table(engines: Mapping[str, Json], rows: int | None, width: int) -> RenderableType:
    table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
    table.add_column("engine", no_wrap=True, max_width=max(8, width // 5))
    table.add_column("state", no_wrap=True, ratio=1, overflow="ellipsis")
    for heading in ("tok/s", "run", "wait", "KV", "restarts"):
        table.add_column(heading, justify="right", no_wrap=True)
    lines = [line for name, each in engines.items() for line in _lines(name, each)]
    for line in lines[:rows]:
        table.add_row(*line)
    if rows is not None and len(lines) > rows:
        table.add_row(f"… {len(lines) - rows} more", "")
    return table


def _lines(name: str, engine: Json) -> Iterator[Sequence[RenderableType]]:
    """The row of an engine, and below it one for each of its replicas, with the calls from here."""
    usage = engine.get("kv_usage")
    figures = [_figure(engine, "tokens_per_s"), _figure(engine, "running"), _figure(engine, "waiting")]
    yield name, _state(engine), *figures, "" if usage is None else _kv(usage), _figure(engine, "restarts")
    for each in engine.get("replicas") or ():
        yield f"  {safe(str(each.get('name', '')))}", _state(each), "", _figure(each, "in_flight"), "", "", ""


def _state(engine: Json) -> Text:
    """State, stage, and the time left."""
    state = str(engine.get("state", ""))
    stage = str(engine.get("stage") or "")
    if stage in ("", state) or state in TOLD_BY_ITS_STATE:
        parts = [state]
    else:
        parts = [stage if stage.startswith(state) else f"{state}: {stage}"]
    if state in ("waiting", "loading", "restarting", "asleep") and (left := remaining(engine.get("remaining_s"))):
        parts.append(left)
    elif state == "loading" and engine.get("progress"):
        # Without earlier starts to compare with there is no time left, only a share.
        parts[-1] += f" ({engine['progress']:.0%})"
    return Text(clipped(", ".join(parts), 200), STYLES.get(state, "yellow"))


def _troubles(engines: Mapping[str, Json]) -> list[Text]:
    """Why engines are down, and, in dim letters, when and why running ones failed last; one line each."""
    down = {name: each for name, each in engines.items() if each.get("state") in TROUBLED}
    lines = [_line(name, each.get("stage") or each.get("reason") or "", "red") for name, each in down.items()]
    lines += [
        _line(name, _last_failure(each["last_failure"]), "dim")
        for name, each in engines.items()
        if name not in down and each.get("last_failure")
    ]
    return [Text(), *lines[:MAX_TROUBLES]] if lines else []


def _line(name: str, text: str, style: str) -> Text:
    return Text(safe(f"{name}: {text}"), style, no_wrap=True, overflow="ellipsis")


def _last_failure(failure: Json) -> str:
    """`last failed 03:12: why`, in local time, with the date if it was not today."""
    at = time.localtime(failure.get("time"))
    clock = time.strftime("%H:%M" if at[:3] == time.localtime()[:3] else "%Y-%m-%d %H:%M", at)
    log = f" (log: {failure['log']})" if failure.get("log") else ""
    return f"last failed {clock}: {failure.get('reason') or ''}{log}"


def _figure(engine: Json, field: str) -> str:
    value = engine.get(field)
    return "" if value is None else f"{value:.0f}"


def _kv(usage: float) -> str:
    full = min(KV_CELLS, round(KV_CELLS * usage))
    return f"{'█' * full}{'·' * (KV_CELLS - full)} {usage:4.0%}"


def _device(device: Json, marks: Mapping[str, str], colours: Mapping[str, str], width: int) -> Text:
    """A bar of the memory planned for each engine, in its letter."""
    total_bytes, free_bytes = device["total_bytes"], device.get("free_bytes")
    figures = f" {total_bytes / GIB:.1f} GiB"
    if free_bytes is not None:
        figures = f" {(total_bytes - free_bytes) / GIB:.1f} of{figures} used"
    if device.get("busy_percent") is not None:
        figures += f", {device['busy_percent']:.0f}% busy"
    name = f"{device['device']:<7} "
    cells = max(10, min(60, width - len(name) - len(figures) - 2))
    bar = Text()
    for engine, planned_bytes in (device.get("engines") or {}).items():
        length = max(1, round(cells * planned_bytes / max(1, total_bytes)))
        bar.append(marks.get(engine, "?") * length, colours.get(engine, ""))
    bar.truncate(cells)
    bar.append("·" * (cells - len(bar)), "dim")
    return Text.assemble(name, "▕", bar, "▏", (figures, "dim"), no_wrap=True, overflow="ellipsis")


def _legend(
    engines: Mapping[str, Json], devices: Sequence[Json], marks: Mapping[str, str], colours: Mapping[str, str]
) -> Text:
    """The letter of each engine, with its planned and used memory."""
    parts = []
    for name, each in engines.items():
        planned = sum((device.get("engines") or {}).get(name, 0) for device in devices)
        used = each.get("used_bytes")
        sizes = f"{planned / GIB:.2f}" + (f" ({used / GIB:.2f} used)" if used else "")
        parts.append(Text.assemble((f"{marks[name]} {name}", colours[name]), f" {sizes}"))
    return Text.assemble(Text("GiB planned: ", "dim"), Text(", ").join(parts))
