"""A bystander with a key of its own, and a look at /health, while an attack goes on."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from campaign.target import Target

PAUSE_S = 0.3


@dataclass
class Watch:
    """`runs` are the bystander's: status, whether the answer was whole, and seconds. `health_s` are answers of /health, each without
    the time in which the gateway waited for a core: that is other programs' doing."""

    runs: list[tuple[int, bool, float]] = field(default_factory=list)
    health_s: list[float] = field(default_factory=list)

    @property
    def served(self) -> int:
        return sum(status == 200 and whole for status, whole, _ in self.runs)

    @property
    def slowest_s(self) -> float:
        return max((took for *_, took in self.runs), default=0.0)

    @property
    def latest_health_s(self) -> float:
        return max(self.health_s, default=0.0)


@asynccontextmanager
async def watching(target: Target) -> AsyncIterator[Watch]:
    watch = Watch()
    tasks = [asyncio.create_task(_run(target, watch)), asyncio.create_task(_look(target, watch))]
    try:
        yield watch
        # At least one run that began during the attack is seen to its end.
        give_up_at = time.monotonic() + 90
        while not watch.runs and time.monotonic() < give_up_at:
            await asyncio.sleep(0.1)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _run(target: Target, watch: Watch) -> None:
    while True:
        reply = await target.ask("bob", timeout_s=90)
        fusion = reply.body.get("fusion", {}) if isinstance(reply.body, dict) else {}
        watch.runs.append((reply.status, fusion.get("status") == "ok", reply.took_s))
        await asyncio.sleep(PAUSE_S)


async def _look(target: Target, watch: Watch) -> None:
    while True:
        before_s = target.waited_s()
        took_s = (await target.get("bob", "/health")).took_s
        watch.health_s.append(max(took_s - (target.waited_s() - before_s), 0.0))
        await asyncio.sleep(PAUSE_S)
