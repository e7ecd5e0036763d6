"""Zero-downtime config reload: new engines start first, then new requests go to them, then the old ones end."""

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
from cappella.gateway.reply_types import Reloaded
from cappella.gateway.state import GatewayState
from cappella.telemetry.audit.actions import OperatorActions
from cappella.tools.servers import ToolServers, require_installed

POLL_S = 0.1
LINGER_S = 1.0
"""How long a request that has read the old state may take until its run is tracked as in flight."""
MAX_TOOLS_START_S = 30.0
"""A slower tool server starts while the new config is served already."""
RELOADABLE = frozenset(
    "max_body_bytes max_waiting max_waiting_per_key max_queue_s max_waiting_bytes client_timeout_s drain_s".split()
)
"""The keys of `server` that a reload may change; it may also change all of `models`, `tools` and `ensembles`."""

ReadConfig = Callable[[], Config]


class Reloader:
    """Holds the current `state`; a reload replaces it, and requests in flight keep the one with which they began."""

    def __init__(
        self, state: GatewayState, supervisor: Supervisor, read_config: ReadConfig, actions: OperatorActions
    ) -> None:
        self.state = state
        self._supervisor = supervisor
        self._read_config = read_config
        self._actions = actions
        self._draining: set[InFlight] = set()
        self._lock = asyncio.Lock()
        self._is_starting = self._is_stopping = False
        self._retirements: set[asyncio.Task[None]] = set()
        self._removal: asyncio.Task[None] | None = None

    async def reload(self) -> Reloaded:
        """Read the config again and serve it.

        Raises ConfigError and ReloadFailed; the server goes on with the old config, except where ReloadFailed says that the
        new one is served.
        """
        before = self.state.config
        with self._actions.recorded("reload") as line:
            try:
                reloaded = await self._reload()
            finally:
                line["changed"] = _changed(before, self.state.config)
            line |= {"started": reloaded["started"], "ended": reloaded["ended"]}
            return reloaded

    async def _reload(self) -> Reloaded:
        if self._is_stopping:
            raise ReloadFailed("The server is stopping.")
        if self._lock.locked() or (self._removal and not self._removal.done()):
            raise ReloadFailed(
                "Another reload is in progress, or engines that it removes are still finishing their runs."
            )
        async with self._lock:
            config = await asyncio.to_thread(self._read_config)
            _require_reloadable(self.state.config, config)
            require_installed(config)
            change = await asyncio.to_thread(self._supervisor.compare, config)
            old, new = self._supervisor.deployment, self._supervisor.prepare(change)
            tool_servers = self.state.tool_servers.for_config(config, new.engines)
            await self._start(new, change, tool_servers)
            old_state = self._switch_to(new, change, tool_servers)
            retirement = asyncio.create_task(self._retire(old_state, old, new, change))
            self._retirements.add(retirement)
            retirement.add_done_callback(self._retirements.discard)
            if change.removed:
                self._removal = retirement
            if not change.fits_side_by_side:
                # The client may disconnect: the new engines have to start all the same.
                await asyncio.shield(retirement)
                _require_up(new, change, "The new config is served, but")
            return _summary(change)

    @property
    def in_flight(self) -> int:
        """How many runs and calls are in flight."""
        return sum(each.count for each in {self.state.in_flight, *self._draining})

    async def drain(self, within_s: float) -> int:
        """Admit no more, nor a reload, and wait for runs and calls in flight; returns how many were cancelled after `within_s`."""
        self._is_stopping = True
        all_in_flight = {self.state.in_flight, *self._draining}
        return sum(await asyncio.gather(*(each.drain(within_s) for each in all_in_flight)))

    async def _start(self, new: Deployment, change: Change, tool_servers: ToolServers) -> None:
        """Start what is new beside what is old. If an engine does not come up, all of it is ended again. Raises ReloadFailed."""
        self._is_starting = True
        try:
            if change.fits_side_by_side:
                self._supervisor.start_engines(new)
                await _wait_until_started(new, change)
                _require_up(new, change, "The old config is still served:")
            await tool_servers.start()
            # A run that begins after the switch finds their tools.
            await tool_servers.settled(MAX_TOOLS_START_S)
        except BaseException:
            if change.fits_side_by_side:
                await self._supervisor.stop_engines(new, change.added)
            self._is_starting = False
            await self._stop_unused_tools()
            raise
        self._is_starting = False

    def _switch_to(self, new: Deployment, change: Change, tool_servers: ToolServers) -> GatewayState:
        """Serve the new deployment from now on; returns the state of the old one."""
        old = self.state
        config = new.config
        self.state = replace(
            old,
            deployment=new,
            pipeline=Pipeline(new.engines, tool_servers),
            tool_servers=tool_servers,
            recorder=old.recorder.for_config(config, change.added),
            admission=old.admission.renewed(config, new.max_calls, change.kept),
            in_flight=InFlight(),
            rows=InFlight(),
        )
        old.bodies.max_bytes = config.server.waiting_bytes
        self._supervisor.deployment = new
        self._draining.add(old.in_flight)
        return old

    async def _retire(self, old_state: GatewayState, old: Deployment, new: Deployment, change: Change) -> None:
        """Wait for the old runs, each until its own deadline, and calls; then end the removed engines.

        Without removed engines nothing is cancelled. Rows of batches are cut by those who answer them, and begin anew.
        """
        await asyncio.sleep(LINGER_S)
        await old_state.in_flight.drain_to_deadlines(new.config.server.drain_s if change.removed else inf)
        # A row whose tools or engines ended under it would be answered without them, for good.
        await old_state.rows.drain(inf)
        self._draining.discard(old_state.in_flight)
        await self._supervisor.stop_engines(old, change.removed)
        await self._stop_unused_tools()
        if not change.fits_side_by_side:
            self._supervisor.start_engines(new)
            await _wait_until_started(new, change)

    async def _stop_unused_tools(self) -> None:
        """End the tool servers of other configs, unless runs still use them, or a reload is about to."""
        if not self._draining and not self._is_starting:
            await self.state.tool_servers.stop_others()


def _require_reloadable(old: Config, new: Config) -> None:
    """Raises ConfigError for a change that needs a restart."""
    fixed = [name for name in type(new.server).model_fields if name not in RELOADABLE]
    pairs = [(f"server.{name}", getattr(old.server, name), getattr(new.server, name)) for name in fixed]
    for key in ("mps", "sleepers_free_graphs", "ray"):
        pairs.append((f"placement.{key}", getattr(old.placement, key), getattr(new.placement, key)))
    for key, before, after in pairs:
        if before != after:
            raise ConfigError(key, f"cannot change from {before!r} to {after!r} by a reload", "Restart the server")


def _changed(old: Config, new: Config) -> list[str]:
    """The places in the config that differ, such as `ensembles.default`; no values, which may be secret."""
    parts = [
        ("models", old.models, new.models),
        ("tools", old.tools, new.tools),
        ("documents", old.documents, new.documents),
        ("ensembles", old.ensembles, new.ensembles),
        ("server", vars(old.server), vars(new.server)),
        ("placement", vars(old.placement), vars(new.placement)),
    ]
    return [
        f"{part}.{name}"
        for part, before, after in parts
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]


async def _wait_until_started(new: Deployment, change: Change) -> None:
    # Of each replica: the status of a model is that of its best one.
    servers = new.config.servers_of(change.added)
    while not all(new.status_of(name).start_finished for name in servers):
        await asyncio.sleep(POLL_S)


def _require_up(new: Deployment, change: Change, what: str) -> None:
    failed = [f"{name} {new.statuses[name].stage}" for name in change.added if not new.statuses[name].accepts_requests]
    if failed:
        raise ReloadFailed(f"{what} {'; '.join(failed)}.")


def _summary(change: Change) -> Reloaded:
    return {
        "started": list(change.added),
        "ended": list(change.removed),
        "kept": sorted(change.kept),
        "ensembles": list(change.config.ensembles),
    }
