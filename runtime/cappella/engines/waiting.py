"""Tells a run that one of its calls waits until it may use its engine; set once for a task, and inherited by its tasks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Literal

WaitReason = Literal["asleep", "swap", "batch"]
"""Why a call waits: its engine slept for want of calls and wakes, another swap group is awake, or its batch has no place."""
Tell = Callable[[WaitReason | None], None]
"""Is called with the reason as a wait begins, and with None when it is over."""
Listener = Callable[[str, WaitReason | None], None]
"""The same, with the name of the model that is called."""

_listener: ContextVar[Listener | None] = ContextVar("waiting", default=None)
_limits: ContextVar[tuple["Limit", ...]] = ContextVar("limits", default=())


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


@asynccontextmanager
async def timeout(seconds: float) -> AsyncIterator["Limit"]:
    """As `asyncio.timeout`, but it stands still while calls in this context are `paused`."""
    async with asyncio.timeout(seconds) as timer:
        limit = Limit(timer)
        token = _limits.set((*_limits.get(), limit))
        try:
            yield limit
        finally:
            _limits.reset(token)


@contextmanager
def paused() -> Iterator[None]:
    """A wait in this context that may last for hours: it counts for no `timeout` around it."""
    limits = _limits.get()
    for limit in limits:
        limit.pause()
    try:
        yield
    finally:
        for limit in limits:
            limit.go_on()


class Limit:
    """A timer that stands still while at least one call has paused it."""

    def __init__(self, timer: asyncio.Timeout) -> None:
        self._timer = timer
        self._pauses = 0
        self._left_s = 0.0

    @property
    def left_s(self) -> float:
        ends_at = self._timer.when()
        return self._left_s if ends_at is None else max(0.0, ends_at - asyncio.get_running_loop().time())

    def pause(self) -> None:
        self._pauses += 1
        if self._pauses == 1 and not self._timer.expired():
            self._left_s = self.left_s
            self._timer.reschedule(None)

    def go_on(self) -> None:
        self._pauses -= 1
        if not self._pauses and not self._timer.expired():
            self._timer.reschedule(asyncio.get_running_loop().time() + self._left_s)


def _tell_nobody(_: WaitReason | None) -> None:
    pass
