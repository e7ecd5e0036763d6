"""Reads engine figures and device memory on demand, with a short cache shared by concurrent requests."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cappella.engines import memory_use
from cappella.engines.base import EngineServer, EngineStats
from cappella.errors import EngineError
from cappella.placement import machine
from cappella.placement.gpus import Gpu

FIGURES_MAX_AGE_S = 1.0
USED_BYTES_MAX_AGE_S = 5.0
"""Longer, since the kernel walks all pages of a process to count its memory."""
MAX_RATE_INTERVAL_S = 10.0
"""Token counts further apart give no current rate."""
ENGINE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one engine; None if not known. `generation_tokens` counts from the start of its process."""

    kv_usage: float | None = None
    running: int | None = None
    waiting: int | None = None
    tokens_per_s: float | None = None
    generation_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class DeviceMemory:
    """Memory of one GPU or of this machine's RAM."""

    device: str
    index: int
    total_bytes: int
    free_bytes: int
    busy_percent: int | None


@dataclass(slots=True)
class Reading:
    """Figures and used bytes by engine, and the memory of each device."""

    figures: Mapping[str, Figures] = field(default_factory=dict)
    memory: Sequence[DeviceMemory] = ()
    used_bytes: Mapping[str, int] = field(default_factory=dict)


class Gauges:
    """Reads and caches figures; `gpus` returns the current state of the GPUs."""

    def __init__(self, gpus: Callable[[], Sequence[Gpu]]) -> None:
        self._gpus = gpus
        self._reading = Reading()
        self._read_at = self._used_at = float("-inf")
        self._tokens: dict[str, tuple[float, float]] = {}
        self._lock = asyncio.Lock()

    async def read(
        self, engines: Mapping[str, EngineServer], groups: Callable[[], Mapping[str, int]], on_gpus: bool
    ) -> Reading:
        """A reading at most `FIGURES_MAX_AGE_S` old; `groups` returns the engines' process groups.

        Figures of an engine that does not answer are None.
        """
        async with self._lock:
            began = time.monotonic()
            if began - self._read_at >= FIGURES_MAX_AGE_S:
                replies = await asyncio.gather(*(_figures(engine) for engine in engines.values()))
                self._reading.figures = {n: self._figures(n, reply) for n, reply in zip(engines, replies, strict=True)}
                # In a thread, so that a slow driver does not block the event loop.
                self._reading.memory = await asyncio.to_thread(self._memory, on_gpus)
                self._read_at = time.monotonic()
            if began - self._used_at >= USED_BYTES_MAX_AGE_S:
                self._reading.used_bytes = await asyncio.to_thread(memory_use.used_bytes, groups(), on_gpus)
                self._used_at = time.monotonic()
            return self._reading

    def _figures(self, name: str, found: EngineStats) -> Figures:
        rate = self._rate(name, found.generation_tokens)
        return Figures(found.kv_usage, found.running, found.waiting, rate, found.generation_tokens)

    def _rate(self, name: str, tokens: float | None) -> float | None:
        now = time.monotonic()
        last_at, last = self._tokens.get(name, (now, 0.0))
        self._tokens[name] = (now, -1.0 if tokens is None else tokens)
        if tokens is None or not 0 < now - last_at < MAX_RATE_INTERVAL_S or not 0 <= last <= tokens:
            return None
        return round((tokens - last) / (now - last_at), 1)

    def _memory(self, on_gpus: bool) -> Sequence[DeviceMemory]:
        if on_gpus:
            return [
                DeviceMemory(f"GPU {g.index}", g.index, g.total_bytes, g.free_bytes, g.busy_percent)
                for g in self._gpus()
            ]
        return [DeviceMemory(d.name, d.index, d.total_bytes, d.free_bytes, None) for d in machine.own_memory().devices]


async def _figures(engine: EngineServer) -> EngineStats:
    if engine.status.state not in ("ready", "unhealthy"):
        return EngineStats()
    try:
        async with asyncio.timeout(ENGINE_TIMEOUT_S):
            return await engine.stats()
    except (EngineError, TimeoutError):
        return EngineStats()
