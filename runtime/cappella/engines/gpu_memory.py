"""The memory of an engine's GPUs: whether there is room for a start, and whether a sleep gives it back."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass

from cappella.engines.base import EngineServer
from cappella.errors import ConfigError, EngineBroke, EngineError

NAP_TIMEOUT_S = 10.0
COMMAND_TIMEOUT_S = 120.0
ROOM_TIMEOUT_S = 30.0
LOOK_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class GpuMemory:
    """What an engine's GPUs have free, on the fullest of them; what it needs there; and what its sleep must give back.

    With `nap_frees_bytes` None it cannot sleep without ending.
    """

    free_bytes: Callable[[], int]
    needs_bytes: int
    nap_frees_bytes: int | None = None

    async def require_room(self) -> None:
        """A GPU gives memory back some time after its process has ended. Raises EngineBroke if it does not."""
        if not await self._is_free(self.needs_bytes, ROOM_TIMEOUT_S):
            free, needs = (size / 2**30 for size in (self.free_bytes(), self.needs_bytes))
            raise EngineBroke(
                f"its GPU has {free:.1f} GiB free and it needs {needs:.1f}: another process holds the rest"
            )

    async def nap(self, engine: EngineServer) -> bool:
        """vLLM's own sleep; False if the memory does not come back: /sleep has answered 200 while it stayed held."""
        try:
            enough_bytes = self.free_bytes() + (self.nap_frees_bytes or 0)
            async with asyncio.timeout(COMMAND_TIMEOUT_S):
                await engine.sleep()
            return await self._is_free(enough_bytes, NAP_TIMEOUT_S)
        except (EngineError, ConfigError, TimeoutError):
            return False

    async def _is_free(self, enough_bytes: int, timeout_s: float) -> bool:
        """Wait until the GPUs have so much free; False if that does not come."""
        give_up_at = time.monotonic() + timeout_s
        while self.free_bytes() < enough_bytes:
            if time.monotonic() > give_up_at:
                return False
            await asyncio.sleep(LOOK_INTERVAL_S)
        return True
