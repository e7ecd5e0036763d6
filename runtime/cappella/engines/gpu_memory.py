"""Checks of an engine's GPU memory: enough for a start, and given back by a sleep."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cappella.engines.base import EngineServer
from cappella.errors import ConfigError, EngineBroke, EngineError

SLEEP_FREES_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """`free_bytes()` is what the fullest of the engine's GPUs has free, `needs_bytes` what a start needs there.

    A sleep in place must free `sleep_frees_bytes`; None means that the server has no sleep mode. Engines that share
    `sleep_turns` fall asleep one after another, since what one frees is seen by all on its GPUs.
    """

    free_bytes: Callable[[], int]
    needs_bytes: int
    sleep_frees_bytes: int | None = None
    sleep_turns: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def require_room(self) -> None:
        """Wait for room: a GPU frees memory some time after a process has ended. Raises EngineBroke if it does not."""
        if not await self._is_free(self.needs_bytes, ROOM_TIMEOUT_S):
            free, needs = (size / 2**30 for size in (self.free_bytes(), self.needs_bytes))
            raise EngineBroke(
                f"its GPU has {free:.1f} GiB free and it needs {needs:.1f}: another process holds the rest"
            )

    async def sleep_in_place(self, engine: EngineServer) -> bool:
        """Call the server's sleep; False unless it frees the memory. vLLM's can succeed without."""
        try:
            async with self.sleep_turns:
                enough_bytes = self.free_bytes() + (self.sleep_frees_bytes or 0)
                async with asyncio.timeout(COMMAND_TIMEOUT_S):
                    await engine.sleep()
                return await self._is_free(enough_bytes, SLEEP_FREES_TIMEOUT_S)
        except (EngineError, ConfigError, TimeoutError):
            return False

    async def _is_free(self, enough_bytes: int, timeout_s: float) -> bool:
        """Whether the GPUs have `enough_bytes` free within the timeout."""
        give_up_at = time.monotonic() + timeout_s
        while self.free_bytes() < enough_bytes:
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(POLL_S)
        return True
