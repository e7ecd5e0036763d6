"""What a server's engines do during a measurement: how long each is busy, its calls, and how often the group in turn changes."""

import asyncio
import re
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import aiohttp

from cappella.background import background
from cappella.types import Json

INTERVAL_S = 0.5
_CALLS = re.compile(r'^cappella_call_seconds_count\{model="([^"]+)",role="([^"]+)"\} (\S+)$', re.MULTILINE)


@dataclass(slots=True)
class Watch:
    """`busy_s` is by engine, `any_busy_s` that of at least one; `calls` are by engine and role."""

    watched_s: float = 0.0
    any_busy_s: float = 0.0
    busy_s: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    swaps: int = 0
    calls: Mapping[tuple[str, str], int] = field(default_factory=dict)
    _running: dict[str, int] = field(default_factory=dict)
    _awake: int | None = None

    @property
    def any_busy_share(self) -> float | None:
        """The share of the time in which at least one engine was busy; None of a time too short for a look."""
        return round(self.any_busy_s / self.watched_s, 3) if self.watched_s else None

    def add(self, engines: Mapping[str, Json], seconds: float) -> None:
        """One look at the engines, so long after the last."""
        for name, engine in engines.items():
            # An engine that does not tell in time, as it works, does what it did.
            known = engine["running"] if engine["state"] == "ready" else 0
            self._running[name] = self._running.get(name, 0) if known is None else known
        busy = [name for name, running in self._running.items() if running]
        self.watched_s += seconds
        self.any_busy_s += seconds if busy else 0.0
        for name in busy:
            self.busy_s[name] += seconds
        self._note_awake({each["turn"] for each in engines.values() if each["state"] == "ready"} - {None})

    def _note_awake(self, groups: set[int]) -> None:
        if len(groups) != 1 or groups == {self._awake}:
            return
        self.swaps += self._awake is not None
        (self._awake,) = groups


@asynccontextmanager
async def watching(http: aiohttp.ClientSession, url: str) -> AsyncIterator[Watch]:
    """Watches in this context; the calls are known after it."""
    watch, before = Watch(), await _calls(http, url)
    async with background(_look(http, url, watch)):
        yield watch
    watch.calls = {key: count for key, count in ((await _calls(http, url)) - before).items() if count}


async def _look(http: aiohttp.ClientSession, url: str, watch: Watch) -> None:
    last = time.monotonic()
    while True:
        async with http.get(f"{url}/api/machine") as reply:
            engines = (await reply.json())["engines"]
        now = time.monotonic()
        watch.add(engines, now - last)
        last = now
        await asyncio.sleep(INTERVAL_S)


async def _calls(http: aiohttp.ClientSession, url: str) -> Counter[tuple[str, str]]:
    async with http.get(f"{url}/metrics") as reply:
        found = _CALLS.findall(await reply.text())
    return Counter({(model, role): int(float(count)) for model, role, count in found})
