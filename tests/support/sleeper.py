"""A scripted engine that sleeps."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from cappella.engines.waiting import Tell, told
from support.fake_engines import FakeEngines


class Sleeper:
    """An engine that wakes when the test says so."""

    def __init__(self, fake_engines: FakeEngines, name: str) -> None:
        self.wakes = asyncio.Event()
        self.is_waited_for = asyncio.Event()
        fake_engines.engines[name]._hold_awake = self.hold_awake

    @asynccontextmanager
    async def hold_awake(self, tell: Tell) -> AsyncIterator[None]:
        with told(tell, "asleep"):
            self.is_waited_for.set()
            await self.wakes.wait()
        yield
