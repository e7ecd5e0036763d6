"""Tells a run that one of its calls waits until its engine is awake; set once for a task, and inherited by its tasks."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Literal

WaitReason = Literal["asleep", "swap"]
"""Why a call waits: its engine slept for want of calls and wakes, or another swap group is awake."""
Tell = Callable[[WaitReason | None], None]
"""Is called with the reason as a wait begins, and with None when it is over."""
Listener = Callable[[str, WaitReason | None], None]
"""The same, with the name of the model that is called."""

_listener: ContextVar[Listener | None] = ContextVar("waiting", default=None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Calls `listener` for every wait in this context, and in the tasks started there."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def teller(model: str) -> Tell:
    """What tells the listener of this task about the waits of one call."""
    listener = _listener.get()
    return partial(listener, model) if listener else _tell_nobody


@contextmanager
def told(tell: Tell, reason: WaitReason) -> Iterator[None]:
    """A wait in this context."""
    tell(reason)
    try:
        yield
    finally:
        tell(None)


def _tell_nobody(_: WaitReason | None) -> None:
    pass
