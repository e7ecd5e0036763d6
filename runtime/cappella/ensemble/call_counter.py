"""Counts every call of an engine and of a tool in a run, also in one that fails: they were made all the same."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from cappella.ensemble.run import Call, ToolUse


@dataclass(frozen=True, slots=True)
class Counted:
    """The calls of engines and of tools that have ended, and the tool servers whose tools a seat was not offered."""

    calls: list[Call] = field(default_factory=list)
    tool_uses: list[ToolUse] = field(default_factory=list)
    missing_tools: dict[str, str] = field(default_factory=dict)


_counted: ContextVar[Counted] = ContextVar("counted")


@contextmanager
def count_calls() -> Iterator[Counted]:
    """Collects what ends within this context, and in the tasks started there."""
    counted = Counted()
    token = _counted.set(counted)
    try:
        yield counted
    finally:
        _counted.reset(token)


def add_call(call: Call) -> None:
    """Record a call of an engine that has ended; does nothing outside `count_calls`."""
    if (counted := _counted.get(None)) is not None:
        counted.calls.append(call)


def add_tool_use(use: ToolUse) -> None:
    """The same for a call of a tool."""
    if (counted := _counted.get(None)) is not None:
        counted.tool_uses.append(use)


def add_missing(servers: Mapping[str, str]) -> None:
    """Note servers whose tools a seat was not offered, and why."""
    if (counted := _counted.get(None)) is not None:
        counted.missing_tools.update(servers)
