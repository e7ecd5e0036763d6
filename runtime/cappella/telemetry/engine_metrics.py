"""Reads engine figures and device memory on demand, with a short cache shared by concurrent requests."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from cappella.engines import memory_use
from cappella.engines.base import EngineServer, EngineStats, SingleServer
from cappella.errors import EngineError
from cappella.placement import machine
from cappella.placement.gpus import Gpu

FIGURES_MAX_AGE_S = 1.0
USED_BYTES_MAX_AGE_S = 5.0
"""Longer, since the kernel walks all pages of a process to count its memory."""
MAX_RATE_INTERVAL_S = 10.0
"""Token counts further apart give no current rate."""
ENGINE_TIMEOUT_S = 1.0

N = TypeVar("N", int, float)


@dataclass(frozen=True, slots=True)
class Figures:
    """Figures of one engine, of several servers those of the ones that answer; None if not known.

    `generation_tokens` is by server, each from the start of its process.
    """

    kv_usage: float | None = None
    running: int | None = None
    waiting: int | None = None
    tokens_per_s: float | None = None
    generation_tokens: Mapping[str, float] = field(default_factory=dict)


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
                replies = await asyncio.gather(*(_by_server(engine) for engine in engines.values()))
                self._reading.figures = {n: self._figures(reply) for n, reply in zip(engines, replies, strict=True)}
                # In a thread, so that a slow driver does not block the event loop.
                self._reading.memory = await asyncio.to_thread(self._memory, on_gpus)
                self._read_at = time.monotonic()
            if began - self._used_at >= USED_BYTES_MAX_AGE_S:
                self._reading.used_bytes = await asyncio.to_thread(memory_use.used_bytes, groups(), on_gpus)
                self._used_at = time.monotonic()
            return self._reading

    def _figures(self, found: Mapping[str, EngineStats]) -> Figures:
        """Sums over the servers, of `kv_usage` the mean."""
        usages = [each.kv_usage for each in found.values() if each.kv_usage is not None]
        tokens = {name: each.generation_tokens for name, each in found.items() if each.generation_tokens is not None}
        rate = _total([self._rate(name, count) for name, count in tokens.items()])
        return Figures(
            sum(usages) / len(usages) if usages else None,
            _total(each.running for each in found.values()),
            _total(each.waiting for each in found.values()),
            None if rate is None else round(rate, 1),
            tokens,
        )

    def _rate(self, server: str, tokens: float) -> float | None:
        """Of one server: the sum of several counts would jump when one of them comes back."""
        now = time.monotonic()
        last_at, last = self._tokens.get(server, (now, 0.0))
        self._tokens[server] = (now, tokens)
        if not 0 < now - last_at < MAX_RATE_INTERVAL_S or last > tokens:
            return None
        return (tokens - last) / (now - last_at)

    def _memory(self, on_gpus: bool) -> Sequence[DeviceMemory]:
        if on_gpus:
            return [
                DeviceMemory(f"GPU {g.index}", g.index, g.total_bytes, g.free_bytes, g.busy_percent)
                for g in self._gpus()
            ]
        return [DeviceMemory(d.name, d.index, d.total_bytes, d.free_bytes, None) for d in machine.own_memory().devices]


async def _by_server(engine: EngineServer) -> Mapping[str, EngineStats]:
    """Each server has its own time: one that is slow leaves the others their figures."""
    servers = engine.servers
    return dict(zip(servers, await asyncio.gather(*map(_stats, servers.values())), strict=True))


async def _stats(server: SingleServer) -> EngineStats:
    if server.status.state not in ("ready", "unhealthy"):
        return EngineStats()
    try:
        async with asyncio.timeout(ENGINE_TIMEOUT_S):
            return await server.stats()
    except (EngineError, TimeoutError):
        return EngineStats()


def _total(values: Iterable[N | None]) -> N | None:
    """The sum of what is known; None if nothing is."""
    known = [value for value in values if value is not None]
    return sum(known[1:], known[0]) if known else None
