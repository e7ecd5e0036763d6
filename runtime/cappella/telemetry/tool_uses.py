"""What a trace and the audit log tell of the tools that members and judge called."""

from collections import Counter
from collections.abc import Mapping

from cappella.ensemble import run as ensemble_run
from cappella.ensemble.run import Run
from cappella.telemetry.trace_types import ToolUse, Trace
from cappella.types import Json

CANNOT_BE_MADE = "unknown"
"""Counts calls of tools that do not exist, whose names a model has made up."""


def add(trace: Trace, run: Run) -> None:
    """Add the calls of tools to a trace, and the servers whose tools a seat was not offered."""
    if run.tool_uses:
        trace["tool_calls"] = told(run)
    if run.missing_tools:
        trace["missing_tools"] = dict(run.missing_tools)


def told(run: Run) -> list[ToolUse]:
    began_at = min((call.began_at for call in run.calls), default=0.0)
    return [_told(use, began_at) for use in run.tool_uses]


def _told(use: ensemble_run.ToolUse, began_at: float) -> ToolUse:
    told: ToolUse = {
        "seat": use.seat,
        "server": use.server,
        "tool": use.tool,
        "arguments": use.arguments,
        "start_ms": round((use.began_at - began_at) * 1000, 1),
        "ms": round(use.total_s * 1000, 1),
        "is_error": use.is_error,
        "shared": use.shared,
        "result_chars": use.result_chars,
    }
    if use.as_text:
        told["as_text"] = True
    return told


def without_content(use: Json) -> Json:
    """The call without its arguments, and without a name that a model has made up."""
    hidden = ("arguments",) if use["server"] else ("arguments", "tool")
    return {name: value for name, value in use.items() if name not in hidden}


def counts(run: Run | None) -> Mapping[str, int]:
    """How many calls a run made of each tool, as `server/tool`."""
    uses = run.tool_uses if run else ()
    return Counter(f"{use.server}/{use.tool}" if use.server else CANNOT_BE_MADE for use in uses)
