"""Measures how long the event loop was held by one piece of work, and whose that was."""

import asyncio
import gc
import json
import time
from asyncio.events import Handle
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

MAX_HELD_S = 0.005
TRIES = 5
"""How often a body may be slow before it is at fault; see `held_too_long`."""
MAX_SLOWNESS = 4.0
NOT_OURS = ("aiohttp/", "tests/")
"""The client and the scripted engines, which share the loop with the gateway."""


class Pace:
    """How much slower this thread computes now than at its best, by the CPU time of a piece of work that is always the same.

    Where cores, caches and memory are shared, as by hyper-threads, a second of CPU time does less.
    """

    def __init__(self) -> None:
        self._least_s = min(self._spent_s() for _ in range(20))

    def slowness(self) -> float:
        """1 at its best."""
        spent_s = self._spent_s()
        self._least_s = min(self._least_s, spent_s)
        return min(MAX_SLOWNESS, spent_s / self._least_s)

    @staticmethod
    def _spent_s() -> float:
        began = time.thread_time()
        json.loads(json.dumps([{"name": str(number), "values": [number] * 8} for number in range(300)]))
        return time.thread_time() - began


class LoopWatchdog:
    """`held_s` has the most CPU time that the loop's thread spent on one callback or step of a task, by what it ran."""

    def __init__(self) -> None:
        self.held_s: dict[str, float] = {}

    def add(self, handle: Any, spent_s: float) -> None:
        name = _name(handle._callback)
        self.held_s[name] = max(self.held_s.get(name, 0.0), spent_s)

    def too_long(self, slowness: float) -> dict[str, float]:
        """What of the gateway's own held a loop for longer than `MAX_HELD_S` at this pace."""
        own = {name: held_s for name, held_s in self.held_s.items() if not any(other in name for other in NOT_OURS)}
        return {name: held_s for name, held_s in own.items() if held_s >= MAX_HELD_S * slowness}


@contextmanager
def watched_loop() -> Iterator[LoopWatchdog]:
    """A watchdog of all loops, during this context; without the collections of garbage, which are not of the work's making."""
    watchdog, run = LoopWatchdog(), Handle._run
    gc.disable()

    def timed(handle: Handle) -> None:
        # The thread's CPU time: what other threads and processes do is none of its doing.
        began = time.thread_time()
        run(handle)
        watchdog.add(handle, time.thread_time() - began)

    Handle._run = timed  # type: ignore[method-assign, assignment]
    try:
        yield watchdog
    finally:
        gc.enable()
        Handle._run = run  # type: ignore[method-assign]


async def held_too_long(act: Callable[[], Awaitable[None]]) -> dict[str, float]:
    """What holds a loop for `MAX_HELD_S` each time that `act` is done, by the least of these times; mostly nothing, after one.

    A machine whose cores and caches are shared gives single steps several times what they take; what a process does once,
    such as compiling a pattern, is no body's work. What a body itself takes, it takes each time.
    """
    found: dict[str, float] = {}
    pace = _pace()
    for number in range(TRIES):
        before = pace.slowness()
        with watched_loop() as watchdog:
            await act()
        now = watchdog.too_long(max(before, pace.slowness()))
        found = {
            name: min(held_s, found.get(name, held_s)) for name, held_s in now.items() if name in found or not number
        }
        if not found:
            break
    return found


@cache
def _pace() -> Pace:
    return Pace()


def _name(callback: Any) -> str:
    owner = getattr(callback, "__self__", None)
    if isinstance(owner, asyncio.Task):
        coro: Any = owner.get_coro()
        code = getattr(coro, "cr_code", None)
        return f"{code.co_filename}:{code.co_qualname}" if code else str(coro)
    return f"{type(owner).__module__}.{getattr(callback, '__qualname__', callback)}"
