"""What a trace and the audit log tell of the tools that members and judge called."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Protocol

from cappella.ensemble import run as ensemble_run
from cappella.ensemble.run import Call
from cappella.telemetry.trace_types import ToolUse, Trace, UnfinishedTrace
from cappella.types import Json

CANNOT_BE_MADE = "unknown"
"""Counts calls of tools that do not exist, whose names a model has made up."""


class Used(Protocol):
    """A run, or the record of one that failed."""

    @property
    def calls(self) -> Sequence[Call]: ...
    @property
    def tool_uses(self) -> Sequence[ensemble_run.ToolUse]: ...
    @property
    def missing_tools(self) -> Mapping[str, str]: ...


def add(trace: Trace | UnfinishedTrace, used: Used) -> None:
    """Add the calls of tools to a trace, and the servers whose tools a seat was not offered."""
    if used.tool_uses:
        began_at = min((call.began_at for call in used.calls), default=0.0)
        trace["tool_calls"] = [_told(use, began_at) for use in used.tool_uses]
    if used.missing_tools:
        trace["missing_tools"] = dict(used.missing_tools)


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


def counts(uses: Sequence[ensemble_run.ToolUse]) -> Mapping[str, int]:
    """How many of these calls were of each tool, as `server/tool`."""
    return Counter(f"{use.server}/{use.tool}" if use.server else CANNOT_BE_MADE for use in uses)
