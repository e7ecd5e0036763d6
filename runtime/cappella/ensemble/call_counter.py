"""Counts every engine call of a run, also of a run that fails: its tokens were spent all the same."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar

from cappella.ensemble.run import Call

_calls: ContextVar[list[Call]] = ContextVar("calls")


@contextmanager
def count_calls() -> Iterator[Sequence[Call]]:
    """Collects the calls that end within this context, and in the tasks started there."""
    calls: list[Call] = []
    token = _calls.set(calls)
    try:
        yield calls
    finally:
        _calls.reset(token)


def add_call(call: Call) -> None:
    """Record a call that has ended; does nothing outside `count_calls`."""
    if (calls := _calls.get(None)) is not None:
        calls.append(call)
