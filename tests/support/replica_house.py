"""Three scripted servers of one model, and the engine that joins them."""

import asyncio
from pathlib import Path
from typing import Any

from cappella.engines.idleness import Idleness
from cappella.engines.replicas.replica import Replica
from cappella.engines.replicas.replicas import Replicas
from cappella.types import Capabilities
from support.scripted_engine import Script, ScriptedEngine

SEQUENCES = 8


class House:
    """Three servers of one model, and the engine that joins them."""

    def __init__(self) -> None:
        self.servers = {f"big-{number}": ScriptedEngine("big", lambda _: Script()) for number in (1, 2, 3)}
        self.wakes = asyncio.Event()
        self.big = Replicas("big", Capabilities())

    async def start(self, folder: Path) -> None:
        for name, server in self.servers.items():
            (folder / name).mkdir()
            self.big.add(Replica(name, await server.start(folder / name), SEQUENCES))

    async def stop(self) -> None:
        for server in self.servers.values():
            server.released.set()
            await server.stop()

    def let(self, script: Script, *names: str) -> None:
        for name in names or self.servers:
            self.servers[name].script = lambda _: script

    def asked(self) -> dict[str, int]:
        """How many calls each server has got."""
        return {name: len(server.bodies) for name, server in self.servers.items()}

    def state(self, name: str, state: Any) -> None:
        self.servers[name].engine.status.state = state

    def sleep(self, *names: str) -> list[str]:
        """Let these sleep until a call or a run wakes them; returns the names of those that began to wake."""
        woken: list[str] = []
        for name in names:
            self._sleep(name, woken)
        return woken

    def _sleep(self, name: str, woken: list[str]) -> None:
        engine = self.servers[name].engine

        async def wake() -> None:
            woken.append(name)
            await self.wakes.wait()
            engine.status.state = "ready"

        idleness = Idleness(3600.0, engine.status, wake)
        engine._hold_awake, engine._keep_awake = idleness.hold_awake, idleness.keep_awake
        engine.status.state = "asleep"

    def running(self) -> list[int]:
        return [server.running for server in self.servers.values()]
