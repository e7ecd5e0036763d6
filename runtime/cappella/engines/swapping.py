"""Swapping of models that do not fit into memory together: groups of engines are awake in turn, calls wait for theirs."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from cappella.engines.waiting import Tell, told

Swap = Callable[[int, int], Awaitable[None]]
"""Puts the engines of one group to sleep, and then wakes those of another."""

FIRST_SWAP_S = 1.0
"""The assumed duration of a swap before there has been one."""
LINGER_SHARE = 0.1
"""Of a swap's duration: an idle group stays awake for so long, since calls of parallel runs come close together."""


class SwapScheduler:
    """Decides which of the groups 0 to `count` - 1 is awake, at first group 0. Each call is made inside `hold_awake`.

    While other groups are waited for, the awake group accepts calls for as long as the last swap took, so that at most
    half of the time is spent on swaps. Then it accepts no more, and after its last call the next group with waiting
    calls wakes, in the order of the plan.
    """

    def __init__(self, count: int, swap: Swap) -> None:
        self._count = count
        self._swap = swap
        self._awake = 0
        self._in_flight = 0
        self._waiting: list[list[asyncio.Future[None]]] = [[] for _ in range(count)]
        self._others_wait_since: float | None = None
        self._swap_s = FIRST_SWAP_S
        self._swapping = False
        self._leaving: asyncio.Task[None] | None = None

    @property
    def awake(self) -> int:
        """The group that is awake, or was until a swap that is under way."""
        return self._awake

    @property
    def waited_for(self) -> frozenset[int]:
        """The groups whose turn calls wait for."""
        return frozenset(group for group, waiting in enumerate(self._waiting) if waiting)

    @asynccontextmanager
    async def hold_awake(self, group: int, tell: Tell) -> AsyncIterator[None]:
        """Wait until the group is awake, and keep it awake inside the context; `tell` is told of the wait."""
        if not self._accepts(group):
            with told(tell, "swap"):
                await self._wait(group)
        else:
            self._in_flight += 1
        try:
            yield
        finally:
            self._in_flight -= 1
            self._leave_if_idle()

    def _accepts(self, group: int) -> bool:
        if self._swapping or group != self._awake:
            return False
        since = self._others_wait_since
        return since is None or time.monotonic() < since + self._swap_s

    async def _wait(self, group: int) -> None:
        """Wait for `_admit`, which counts the call at once: else the group could change before the call runs."""
        admitted = asyncio.get_running_loop().create_future()
        self._waiting[group].append(admitted)
        if group != self._awake and self._others_wait_since is None:
            self._others_wait_since = time.monotonic()
        self._leave_if_idle()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._in_flight -= 1
                self._leave_if_idle()
            elif admitted in self._waiting[group]:
                self._waiting[group].remove(admitted)
                self._admit_if_no_others_wait()
            raise

    def _admit_if_no_others_wait(self) -> None:
        """Let the awake group go on once no call waits for another group."""
        others = (waiting for group, waiting in enumerate(self._waiting) if group != self._awake)
        if self._swapping or any(others):
            return
        self._others_wait_since = None
        self._admit(self._awake)

    def _leave_if_idle(self) -> None:
        """Begin to leave the awake group if it has no call in flight and calls wait."""
        if not self._in_flight and not self._leaving and any(self._waiting):
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        try:
            await asyncio.sleep(self._swap_s * LINGER_SHARE)
            if not self._in_flight:
                following = [(self._awake + step) % self._count for step in range(1, self._count + 1)]
                await self._swap_to(next((group for group in following if self._waiting[group]), self._awake))
        finally:
            self._leaving = None
            self._leave_if_idle()

    async def _swap_to(self, group: int) -> None:
        began = time.monotonic()
        self._swapping = True
        try:
            if group != self._awake:
                await self._swap(self._awake, group)
                self._swap_s = time.monotonic() - began
        finally:
            self._awake, self._swapping = group, False
            self._admit(group)

    def _admit(self, group: int) -> None:
        """Let all waiting calls of the group through, and count them."""
        for admitted in self._waiting[group]:
            if not admitted.done():
                admitted.set_result(None)
                self._in_flight += 1
        self._waiting[group].clear()
        self._others_wait_since = time.monotonic() if any(self._waiting) else None
