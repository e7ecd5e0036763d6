"""One config after another, with no run lost: new engines first, then the change, then the end of the old ones."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from math import inf

from cappella.config import Config
from cappella.engines.deployment import Change, Deployment
from cappella.engines.supervisor import Supervisor
from cappella.ensemble.pipeline import Pipeline
from cappella.errors import ConfigError, ReloadFailed
from cappella.gateway.drain import InFlight
from cappella.gateway.state import GatewayState
from cappella.types import Json

POLL_S = 0.1
LINGER_S = 1.0
"""A request that has just been read gets its parts, and passes the doors some steps later."""
MAY_CHANGE = frozenset("max_body_bytes max_waiting max_waiting_per_key client_timeout_s drain_s".split())
"""Of `server`, without a restart; and everything in `models` and `ensembles`."""

ReadConfig = Callable[[], Config]


class Reloader:
    """`parts` are what requests are answered with from now on; whoever came in before keeps those that he came with."""

    def __init__(self, parts: GatewayState, supervisor: Supervisor, reread: ReadConfig) -> None:
        self.parts = parts
        self._supervisor = supervisor
        self._reread = reread
        self._older: set[InFlight] = set()
        self._changing = asyncio.Lock()
        self._endings: set[asyncio.Task[None]] = set()
        self._engines_end: asyncio.Task[None] | None = None

    async def reload(self) -> Json:
        """Read the config anew and serve it; says what came of it. Raises ConfigError or ReloadFailed, and serves on."""
        if self._changing.locked() or (self._engines_end and not self._engines_end.done()):
            raise ReloadFailed("Another reload is under way, or its earlier engines finish what they began.")
        async with self._changing:
            config = await asyncio.to_thread(self._reread)
            _require_changeable(self.parts.config, config)
            change = await asyncio.to_thread(self._supervisor.compare, config)
            old, new = self._supervisor.deployment, self._supervisor.prepare(change)
            if change.fits_side_by_side:
                await self._come_first(new, change)
            in_flight = self._become(new, change)
            ending = asyncio.create_task(self._end(in_flight, old, new, change))
            self._endings.add(ending)
            ending.add_done_callback(self._endings.discard)
            if change.removed:
                self._engines_end = ending
            if not change.fits_side_by_side:
                # Whoever asked for it may leave; it has to be done all the same.
                await asyncio.shield(ending)
                _require_up(new, change, "The new config is served, but")
            return _told(change)

    @property
    def inside(self) -> int:
        """How many runs and calls are under way."""
        return sum(in_flight.count for in_flight in {self.parts.in_flight, *self._older})

    async def drain(self, within_s: float) -> int:
        """Let nobody in any more, and wait for those who are inside; returns how many were cut after `within_s`."""
        in_flight = {self.parts.in_flight, *self._older}
        return sum(await asyncio.gather(*(each.close(within_s) for each in in_flight)))

    async def _come_first(self, new: Deployment, change: Change) -> None:
        """Until every new engine is up, while the old ones go on. If one fails to be, all is as before."""
        self._supervisor.start_engines(new)
        try:
            await _settled(new, change)
            _require_up(new, change, "All is as it was before:")
        except BaseException:
            await self._supervisor.stop_engines(new, change.added)
            raise

    def _become(self, new: Deployment, change: Change) -> InFlight:
        """Serve with another fleet from now on; returns the doors by which nobody comes in any more."""
        old = self.parts
        config = new.config
        self.parts = replace(
            old,
            deployment=new,
            pipeline=Pipeline(new.engines),
            recorder=old.recorder.for_config(config, change.added),
            admission=old.admission.renewed(config, change.kept),
            in_flight=InFlight(),
        )
        self._supervisor.deployment = new
        self._older.add(old.in_flight)
        return old.in_flight

    async def _end(self, in_flight: InFlight, old: Deployment, new: Deployment, change: Change) -> None:
        """Wait for the old runs, each until its own deadline, and calls; then end the engines that nobody needs now.

        What is under way on engines that stay is in nobody's way.
        """
        await asyncio.sleep(LINGER_S)
        await in_flight.let_end(new.config.server.drain_s if change.removed else inf)
        self._older.discard(in_flight)
        await self._supervisor.stop_engines(old, change.removed)
        if not change.fits_side_by_side:
            self._supervisor.start_engines(new)
            await _settled(new, change)


def _require_changeable(old: Config, new: Config) -> None:
    """Raises ConfigError for a change that only a restart brings."""
    fixed = [name for name in type(new.server).model_fields if name not in MAY_CHANGE]
    pairs = [(f"server.{name}", getattr(old.server, name), getattr(new.server, name)) for name in fixed]
    pairs.append(("placement.mps", old.placement.mps, new.placement.mps))
    for key, before, after in pairs:
        if before != after:
            raise ConfigError(key, f"cannot change from {before!r} to {after!r} under way", "Restart the server")


async def _settled(new: Deployment, change: Change) -> None:
    while not all(new.statuses[name].start_finished for name in change.added):
        await asyncio.sleep(POLL_S)


def _require_up(new: Deployment, change: Change, what: str) -> None:
    failed = [f"{name} {new.statuses[name].stage}" for name in change.added if not new.statuses[name].accepts_requests]
    if failed:
        raise ReloadFailed(f"{what} {'; '.join(failed)}.")


def _told(change: Change) -> Json:
    return {
        "started": list(change.added),
        "ended": list(change.removed),
        "kept": sorted(change.kept),
        "ensembles": list(change.config.ensembles),
    }
