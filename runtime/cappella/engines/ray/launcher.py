"""Starts servers on the nodes of a Ray cluster: a `Launcher` for each model, whose driver process stands for the server here."""

import asyncio
import json
import os
import secrets
import socket
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

from cappella.config import Config, Model
from cappella.engines import log_rotation
from cappella.engines.address import Address
from cappella.engines.process.logged import LoggedProcess
from cappella.engines.process.process import STOP_TIMEOUT_S
from cappella.engines.ray import connection, digests
from cappella.engines.ray.order import Order
from cappella.engines.ray.room import Place, Room
from cappella.engines.startup_log import StartupStages
from cappella.placement.planner import Placed, Plan
from cappella.version import __version__

NOWHERE = Address("http://127.0.0.1:9/v1", started_here=True)
"""Of an engine whose server does not listen yet: the port of the service that discards."""
KILL_TIMEOUT_S = 5.0

DRIVER_STOPS_IN_S = STOP_TIMEOUT_S + 7.0
MAX_LINE_BYTES = 1 << 20

MoveTo = Callable[[Address], Awaitable[None]]
Choose = Callable[[Mapping[str, str]], Place | None]
"""The place of an engine, from the addresses of the living nodes by name."""


class RayLaunchers:
    """The launchers of a plan's models: they share the cluster's room."""

    def __init__(self, config: Config, plan: Plan, stages: StartupStages) -> None:
        assert config.placement.ray is not None
        self._ray = config.placement.ray
        self._server = config.server
        self._environment = connection.environment(config.placement.ray, config.server)
        self._room = Room(plan)
        self._stages = stages

    def launcher(
        self, name: str, model: Model, placed: Placed, engines: int, move_to: Sequence[MoveTo]
    ) -> "RayLauncher":
        """The launcher of one model, whose clients it moves to where the server listens; so many `engines` are on its node."""
        order = Order(
            version=__version__,
            model=name,
            arguments=(),
            key="",
            folders=[str(folder) for folder in (model.weights, *model.adapters.values())],
            digests={},
            eager=model.enforce_eager,
            threads=model.cpu_threads,
            engines=engines,
            total_bytes=placed.total_bytes,
            may_reach=[str(address) for address in self._server.may_reach],
        )
        return RayLauncher(order, self._ray.address, self._environment, self._choose(name), self._stages, move_to)

    def _choose(self, name: str) -> Choose:
        def choose(alive: Mapping[str, str]) -> Place | None:
            return self._room.place(name, [node for node, host in alive.items() if self._server.may_connect_to(host)])

        return choose


class RayLauncher:
    """Starts the server of one model on the node that `choose` takes; its clients are moved there."""

    def __init__(
        self,
        order: Order,
        address: str,
        environment: Mapping[str, str],
        choose: Choose,
        stages: StartupStages,
        move_to: Sequence[MoveTo],
    ) -> None:
        self._order = order
        self._address = address
        self._environment = environment
        self._choose = choose
        self._stages = stages
        self._move_to = move_to
        self._last: RayProcess | None = None

    async def launch(self, arguments: Sequence[str], folder: Path, log: Path) -> "RayProcess":
        """Start a driver. The private `folder` is one of the node's, so this one is not used. Raises OSError."""
        log.parent.mkdir(parents=True, exist_ok=True)
        log_rotation.rotate(log)
        # The server of an earlier launch may live a moment longer, and is not this one.
        await self._move(NOWHERE)
        found = await digests.read(map(Path, self._order.folders))
        order = replace(self._order, arguments=list(arguments), key=secrets.token_urlsafe(32), digests=found)
        ours, theirs = socket.socketpair()
        try:
            with theirs, log_rotation.create(log) as sink:
                driver = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "cappella.engines.ray.driver", str(os.getpid())),
                    stdin=theirs.fileno(),
                    stdout=sink,
                    stderr=sink,
                    env=self._environment,
                    start_new_session=True,
                )
        except OSError:
            ours.close()
            raise
        reader, writer = await asyncio.open_connection(sock=ours, limit=MAX_LINE_BYTES)
        writer.write(json.dumps([self._address, asdict(order)]).encode() + b"\n")
        self._last = RayProcess(driver, reader, writer, self._stages, log, self._choose, self._moved(order.key))
        return self._last

    async def close(self) -> None:
        """Call off a server that has not begun; one that has lives on."""
        if self._last and not self._last.has_begun:
            await self._last.kill()

    def _moved(self, key: str) -> Callable[[str], Awaitable[None]]:
        async def moved(base: str) -> None:
            await self._move(Address(base, key=key, started_here=True))

        return moved

    async def _move(self, address: Address) -> None:
        for move_to in self._move_to:
            await move_to(address)


class RayProcess(LoggedProcess):
    """A server on a node, as its driver tells of it. It counts as running as long as the driver does."""

    stop_timeout_s = DRIVER_STOPS_IN_S
    process_group = None
    starting_group = None

    def __init__(
        self,
        driver: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        stages: StartupStages,
        log: Path,
        choose: Choose,
        moved: Callable[[str], Awaitable[None]],
    ) -> None:
        super().__init__(stages, log)
        self.has_begun = False
        self._driver = driver
        self._reader = reader
        self._control = writer
        self._choose = choose
        self._moved = moved
        self._ended = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Answer the driver until it has ended."""
        try:
            while line := await self._reader.readline():
                await self._take(json.loads(line))
        except ConnectionError:
            pass
        finally:
            self._control.close()
            await self._driver.wait()

    async def _take(self, told: Mapping[str, object]) -> None:
        match told:
            case {"alive": dict(alive)}:
                place = self._choose(alive)
                self._control.write(json.dumps(asdict(place) if place else None).encode() + b"\n")
            case {"base": str(base)}:
                self.has_begun = True
                await self._moved(base)
            case {"exit_code": int() | None as code}:
                self.exit_code = code

    async def kill(self) -> None:
        """Kill the driver: Ray ends the actor with it, and the actor's end is that of the server."""
        self.kill_group()
        await self.wait(KILL_TIMEOUT_S)

    def kill_group(self) -> None:
        """The same without waiting."""
        with suppress(ProcessLookupError):
            self._driver.kill()
