"""Checks of an engine's GPU memory: enough for a start, and given back by a sleep."""

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

from cappella.engines.base import SingleServer
from cappella.errors import ConfigError, EngineBroke, EngineError

SLEEP_FREES_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0
POLL_S = 0.1


class SleepTurns:
    """Shared by the engines of a machine: they fall asleep one after another, since what one frees is seen by all on its GPUs.

    Starts and wakes take memory of their GPUs while others on these are judged by what is free.
    """

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self._begun: Counter[int] = Counter()
        self._ended: Counter[int] = Counter()

    @contextmanager
    def grows(self, gpus: Sequence[int]) -> Iterator[None]:
        """An engine takes memory of these GPUs inside."""
        self._begun.update(gpus)
        try:
            yield
        finally:
            self._ended.update(gpus)

    def begun(self, gpus: Sequence[int]) -> int:
        """How often an engine has begun to take memory of one of these GPUs."""
        return sum(self._begun[gpu] for gpu in gpus)

    def ended(self, gpus: Sequence[int]) -> int:
        """How often it has come to an end: a later `begun` that is greater tells of one in between."""
        return sum(self._ended[gpu] for gpu in gpus)


@dataclass(frozen=True, slots=True)
class Sleep:
    """What a sleep in place must free over all GPUs of the engine, and what its processes may keep there at most."""

    frees_bytes: int
    keeps_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """`free_bytes()` is what the fullest of the engine's GPUs has free, `needs_bytes` what a start needs there.

    `held_bytes(group)` is what a process group holds over all GPUs, 0 if the driver does not tell. Without `sleep` the server
    has no sleep mode. `gpus` are the engine's, by index.
    """

    free_bytes: Callable[[], int]
    needs_bytes: int
    sleep: Sleep | None = None
    gpus: Sequence[int] = (0,)
    held_bytes: Callable[[int], int] = lambda group: 0
    turns: SleepTurns = field(default_factory=SleepTurns)

    def grows(self) -> AbstractContextManager[None]:
        """Tells engines that fall asleep meanwhile that this one takes memory inside."""
        return self.turns.grows(self.gpus)

    async def require_room(self) -> None:
        """Wait for room: a GPU frees memory some time after a process has ended. Raises EngineBroke if it does not."""
        if not await _is_soon(lambda: self.free_bytes() >= self.needs_bytes, ROOM_TIMEOUT_S):
            free, needs = (size / 2**30 for size in (self.free_bytes(), self.needs_bytes))
            raise EngineBroke(
                f"its GPU has {free:.1f} GiB free and it needs {needs:.1f}: another process holds the rest"
            )

    async def sleep_in_place(self, engine: SingleServer, group: int | None) -> bool:
        """Call the server's sleep; False unless it frees the memory. vLLM's can succeed without.

        What its own processes hold tells it; where the driver does not, what is free on its GPUs, which another engine that
        wakes or starts there meanwhile takes: then the server's word counts.
        """
        try:
            async with self.turns.lock:
                held = await self._held(group)
                free, ended = self.free_bytes(), self.turns.ended(self.gpus)
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await engine.sleep()
                told = await self._gives_back(group, held) if held else None
                if told is not None:
                    return told
                frees = (self.sleep.frees_bytes if self.sleep else 0) // len(self.gpus)
                is_freed = await _is_soon(lambda: self.free_bytes() >= free + frees, SLEEP_FREES_TIMEOUT_S)
                return is_freed or self.turns.begun(self.gpus) > ended
        except (EngineError, ConfigError, TimeoutError):
            return False

    async def _gives_back(self, group: int | None, held_before: int) -> bool | None:
        """Whether its processes hold so much less, and not more than a sleeper may, within the timeout.

        None if the driver has fallen silent by then; one silent answer tells nothing.
        """
        sleep = self.sleep or Sleep(0)
        most = held_before - sleep.frees_bytes
        most = min(most, sleep.keeps_bytes or most)
        give_up_at = time.monotonic() + SLEEP_FREES_TIMEOUT_S
        while not 0 < (held := await self._held(group)) <= most:
            if time.monotonic() > give_up_at:
                return False if held else None
            await asyncio.sleep(POLL_S)
        return True

    async def _held(self, group: int | None) -> int:
        return await asyncio.to_thread(self.held_bytes, group) if group is not None else 0


async def _is_soon(condition: Callable[[], bool], timeout_s: float) -> bool:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > give_up_at:
            return False
        await asyncio.sleep(POLL_S)
    return True
