"""Engines that do not fit into memory at once take turns: who waits for a sleeper is served with all who wait for it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

Change = Callable[[int, int], Awaitable[None]]
"""Puts the engines of one turn to sleep, and then wakes those of another."""

FIRST_CHANGE_S = 1.0
"""What a change is taken to last before there has been one."""
LINGER = 0.1
"""Calls of runs that began together come within milliseconds of each other: it would be a waste to leave between them."""


class Turns:
    """Turns 0 to `count` - 1, of which one is awake, at first turn 0. Calls come in by `seat`.

    While others wait, the turn that is awake goes on to take calls for as long as the last change took, so that no
    more than half of the time goes into changes; then it takes no more, and when its last call is over the next turn
    with anybody in it wakes, in the order of the plan.
    """

    def __init__(self, count: int, change: Change) -> None:
        self._count = count
        self._change = change
        self._awake = 0
        self._in_flight = 0
        self._waiting: list[list[asyncio.Future[None]]] = [[] for _ in range(count)]
        self._others_wait_since: float | None = None
        self._change_s = FIRST_CHANGE_S
        self._changing = False
        self._leaving: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def seat(self, turn: int) -> AsyncIterator[None]:
        """From when the turn is awake until the caller is done with it."""
        if not self._admits(turn):
            await self._wait(turn)
        else:
            self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._go_on()

    def _admits(self, turn: int) -> bool:
        if self._changing or turn != self._awake:
            return False
        since = self._others_wait_since
        return since is None or time.monotonic() < since + self._change_s

    async def _wait(self, turn: int) -> None:
        """Whoever lets a caller in counts it at once: else the turn could change before the caller runs."""
        place = asyncio.get_running_loop().create_future()
        self._waiting[turn].append(place)
        if turn != self._awake and self._others_wait_since is None:
            self._others_wait_since = time.monotonic()
        self._go_on()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._in_flight -= 1
                self._go_on()
            elif place in self._waiting[turn]:
                self._waiting[turn].remove(place)
                self._forget_others()
            raise

    def _forget_others(self) -> None:
        """Where nobody waits for another turn any more, the one that is awake goes on."""
        if self._changing or any(waiting for turn, waiting in enumerate(self._waiting) if turn != self._awake):
            return
        self._others_wait_since = None
        self._let_in(self._awake)

    def _go_on(self) -> None:
        """Leave the turn that is awake, if nobody is in it and somebody waits."""
        if not self._in_flight and not self._leaving and any(self._waiting):
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        try:
            await asyncio.sleep(self._change_s * LINGER)
            if not self._in_flight:
                following = [(self._awake + step) % self._count for step in range(1, self._count + 1)]
                await self._change_to(next((turn for turn in following if self._waiting[turn]), self._awake))
        finally:
            self._leaving = None
            self._go_on()

    async def _change_to(self, turn: int) -> None:
        began = time.monotonic()
        self._changing = True
        try:
            if turn != self._awake:
                await self._change(self._awake, turn)
                self._change_s = time.monotonic() - began
        finally:
            self._awake, self._changing = turn, False
            self._let_in(turn)

    def _let_in(self, turn: int) -> None:
        for place in self._waiting[turn]:
            if not place.done():
                place.set_result(None)
                self._in_flight += 1
        self._waiting[turn].clear()
        self._others_wait_since = time.monotonic() if any(self._waiting) else None
