"""The engines' own figures and this machine's memory, read while somebody asks, and once for all who ask at once."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from cappella.engines import memory_use
from cappella.engines.base import EngineServer, EngineStats
from cappella.errors import EngineError
from cappella.placement import machine
from cappella.placement.gpus import Gpu

FIGURES_S = 1.0
"""A reading serves for so long."""
USED_S = 5.0
"""The kernel goes through all pages of a process to tell what it holds."""
MAX_GAP_S = 10.0
"""Over a longer time nobody means the rate of now."""
PATIENCE_S = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one engine; None is what is not known now."""

    kv_usage: float | None = None
    running: int | None = None
    waiting: int | None = None
    tokens_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class Persistence:
    """Of one GPU, or this machine's own."""

    device: str
    index: int
    total_bytes: int
    free_bytes: int
    busy_percent: int | None


@dataclass(slots=True)
class Reading:
    figures: Mapping[str, Figures] = field(default_factory=dict)
    memory: Sequence[Persistence] = ()
    used_bytes: Mapping[str, int] = field(default_factory=dict)


class Gauges:
    """`gpus` reads the GPUs as they are."""

    def __init__(self, gpus: Callable[[], Sequence[Gpu]]) -> None:
        self._gpus = gpus
        self._reading = Reading()
        self._read_at = self._used_at = float("-inf")
        self._tokens: dict[str, tuple[float, float]] = {}
        self._one_at_a_time = asyncio.Lock()

    async def read(
        self, engines: Mapping[str, EngineServer], groups: Callable[[], Mapping[str, int]], on_gpus: bool
    ) -> Reading:
        """As of a second ago at the most; `groups` are the engines' process groups. What does not answer is left out."""
        async with self._one_at_a_time:
            began = time.monotonic()
            if began - self._read_at >= FIGURES_S:
                found = await asyncio.gather(*(_figures(engine) for engine in engines.values()))
                self._reading.figures = {n: self._figures(n, each) for n, each in zip(engines, found, strict=True)}
                # A slow driver may not hold the streams up.
                self._reading.memory = await asyncio.to_thread(self._memory, on_gpus)
                self._read_at = time.monotonic()
            if began - self._used_at >= USED_S:
                self._reading.used_bytes = await asyncio.to_thread(memory_use.used_bytes, groups(), on_gpus)
                self._used_at = time.monotonic()
            return self._reading

    def _figures(self, name: str, found: EngineStats) -> Figures:
        return Figures(found.kv_usage, found.running, found.waiting, self._rate(name, found.generation_tokens))

    def _rate(self, name: str, tokens: float | None) -> float | None:
        now = time.monotonic()
        before_at, before = self._tokens.get(name, (now, 0.0))
        self._tokens[name] = (now, -1.0 if tokens is None else tokens)
        if tokens is None or not 0 < now - before_at < MAX_GAP_S or not 0 <= before <= tokens:
            return None
        return round((tokens - before) / (now - before_at), 1)

    def _memory(self, on_gpus: bool) -> Sequence[Persistence]:
        if on_gpus:
            return [
                Persistence(f"GPU {g.index}", g.index, g.total_bytes, g.free_bytes, g.busy_percent)
                for g in self._gpus()
            ]
        return [Persistence(d.name, d.index, d.total_bytes, d.free_bytes, None) for d in machine.own_memory().devices]


async def _figures(engine: EngineServer) -> EngineStats:
    if engine.status.state not in ("ready", "unhealthy"):
        return EngineStats()
    try:
        async with asyncio.timeout(PATIENCE_S):
            return await engine.stats()
    except (EngineError, TimeoutError):
        return EngineStats()
