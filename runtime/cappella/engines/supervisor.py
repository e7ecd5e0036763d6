"""Owns all engine processes: starts and stops them, swaps them, and exchanges them when the config is reloaded."""

import asyncio
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from shutil import rmtree

from cappella.config import Config, paths
from cappella.engines import backends, deployment
from cappella.engines.base import EngineServer
from cappella.engines.builder import EngineBuilder
from cappella.engines.deployment import Change, Deployment
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.mps import Mps
from cappella.engines.remote import Attachment
from cappella.engines.spec import Backoff
from cappella.engines.status import Action, EngineStatus
from cappella.engines.swapping import SwapScheduler
from cappella.errors import ActionRefused, ConfigError, RunsElsewhere, UnknownEngine
from cappella.placement import advice, contexts, machine
from cappella.placement.planner import Plan

ACTION_WAIT_S = 0.2
"""An action that is done by then is reported as done; a longer one goes on in the background."""
STOP_TIMEOUT_S = 30.0
"""More than the stop of an engine takes; after that every process group is killed."""


class Supervisor:
    """`engines` maps each model and adapter to its engine, ready or not; `plan` is their placement, `warnings` what it leaves out.

    Raises ConfigError for weights that cannot be served, and DoesNotFit if they need more memory than there is.
    """

    def __init__(
        self, config: Config, log_dir: Path, backoff: Backoff = Backoff(), health_interval_s: float = 1.0
    ) -> None:
        if config.local:
            backends.require_installed()
        nodes = backends.nodes_for(config)
        own, self.warnings = nodes.machine, nodes.warnings
        plan = advice.plan(config, own)
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="cappella-"))
        self._mps = Mps(self._runtime_dir / "_mps") if config.placement.mps and plan.machine.gpu else None
        self.swap_scheduler = SwapScheduler(len(plan.turns), self._swap) if plan.turns else None
        self._builder = EngineBuilder(
            config, self._runtime_dir, log_dir, self._mps, self.swap_scheduler, backoff, health_interval_s
        )
        self._tasks: dict[Lifecycle | Attachment, asyncio.Task[None]] = {}
        self._actions: set[asyncio.Task[None]] = set()
        served = contexts.applied(config, plan)
        self.deployment = Deployment(served, config, own, plan, deployment.fingerprints(config), {}, {}, {})
        try:
            self._builder.add_engines(self.deployment, config.models)
        except ConfigError:
            self._runtime_dir.rmdir()
            raise

    @property
    def plan(self) -> Plan:
        return self.deployment.plan

    @property
    def engines(self) -> dict[str, EngineServer]:
        return self.deployment.engines

    @property
    def lifecycles(self) -> Mapping[str, Lifecycle]:
        return self.deployment.lifecycles

    @property
    def statuses(self) -> Mapping[str, EngineStatus]:
        """By model; an adapter has its model's status."""
        return self.deployment.statuses

    async def start(self) -> None:
        """Begin to start every engine, in the background."""
        if self._mps:
            # The daemon gets all GPUs in the order of the bus, like the engines. With CUDA_VISIBLE_DEVICES set for both
            # of them, the selection would be applied twice.
            env = backends.server_environment(None, gpus=())
            del env["CUDA_VISIBLE_DEVICES"]
            await self._mps.start(env)
        self.start_engines(self.deployment)

    def start_engines(self, new: Deployment) -> None:
        """Begin to start the engines that do not run; judges first, since every ensemble needs its own."""
        judges = new.config.servers_of(new.config.judges)
        runners: dict[str, Lifecycle | Attachment] = {**new.attachments, **new.lifecycles}
        for name in sorted(runners, key=lambda name: name not in judges):
            runner, task = runners[name], self._tasks.get(runners[name])
            if task is None or task.done():
                if task and isinstance(runner, Lifecycle):
                    runner.reset_failures()
                self._tasks[runner] = asyncio.create_task(runner.run())

    def compare(self, config: Config) -> Change:
        """The change that another config needs. Raises ConfigError or DoesNotFit, as a start with it would."""
        old = self.deployment
        return deployment.plan_change(old, config, old.machine if old.machine.is_cluster else machine.own())

    def prepare(self, change: Change) -> Deployment:
        """The deployment after a change: the kept engines, and new ones for `start_engines`. Raises ConfigError."""
        old = self.deployment
        kept_servers = old.config.servers_of(change.kept)
        lifecycles = {name: each for name, each in old.lifecycles.items() if name in kept_servers}
        attachments = {name: each for name, each in old.attachments.items() if name in kept_servers}
        kept_names = old.config.names_of(change.kept)
        engines = {name: engine for name, engine in old.engines.items() if name in kept_names}
        served, written = contexts.applied(change.config, change.plan), change.config
        parts = (old.machine, change.plan, change.fingerprints, engines, lifecycles, attachments)
        new = Deployment(served, written, *parts)
        self._builder.add_engines(new, change.added)
        return new

    async def stop_engines(self, old: Deployment, names: Iterable[str]) -> None:
        """Stop the engines of these models, and close the clients of their adapters, too."""
        for name in names:
            for server in old.config.servers_of([name]):
                task = self._tasks.pop(old.attachments.get(server) or old.lifecycles[server], None)
                if task:
                    task.cancel()
                    await asyncio.wait({task})
            for called in old.config.names_of([name]):
                await old.engines[called].close()

    def actions(self, name: str) -> Sequence[Action]:
        """What an operator may ask of an engine now."""
        return self.lifecycles[name].actions if name in self.lifecycles else ()

    async def act(self, name: str, action: str) -> None:
        """Begin an operator's action on an engine, whose status shows the outcome.

        Raises UnknownEngine, RunsElsewhere for an attached server, and ActionRefused if its state does not allow it.
        """
        if name in self.deployment.attachments or name in self.deployment.config.remote:
            raise RunsElsewhere(name)
        lifecycle = self.lifecycles.get(name)
        if lifecycle is None:
            raise UnknownEngine(name, list(self.lifecycles))
        if action not in lifecycle.actions:
            raise ActionRefused(name, self.deployment.status_of(name).state, action, lifecycle.actions)
        if action == "start":
            lifecycle.reset_failures()
            self._tasks[lifecycle] = asyncio.create_task(lifecycle.run())
            return
        methods = {"sleep": lifecycle.stop, "wake": lifecycle.resume, "restart": lifecycle.restart}
        task = asyncio.create_task(methods[action]())
        self._actions.add(task)
        task.add_done_callback(self._actions.discard)
        await asyncio.wait({task}, timeout=ACTION_WAIT_S)

    def log_of(self, name: str) -> Path | None:
        """The log of an engine's last launch; None for a server that runs elsewhere."""
        return self.lifecycles[name].log if name in self.lifecycles else None

    def process_groups(self) -> Mapping[str, int]:
        """The process group of each engine that has one now."""
        groups = {name: each.process_group for name, each in self.lifecycles.items()}
        return {name: group for name, group in groups.items() if group is not None}

    async def _swap(self, old: int, new: int) -> None:
        """Put one swap group to sleep, then wake the other, since there is no room for both."""
        groups = self.plan.turns
        for name in groups[old]:
            # One after another: a sleep counts only if the free memory of its GPUs grows.
            await self.lifecycles[name].sleep()
        await asyncio.gather(*(self.lifecycles[name].wake() for name in groups[new]))

    async def stop(self) -> None:
        """Stop every engine and remove the runtime directory, within a minute even if engines hang."""
        tasks = {*self._actions, *self._tasks.values()}
        for task in tasks:
            task.cancel()
        # Closing the launchers first calls off the engines that have not begun yet.
        await asyncio.gather(*(launcher.close() for launcher in self._builder.launchers.values()))
        if tasks:
            await asyncio.wait(tasks, timeout=STOP_TIMEOUT_S)
        for lifecycle in self._tasks:
            if isinstance(lifecycle, Lifecycle):
                lifecycle.kill_group()
        for engine in self.engines.values():
            await engine.close()
        if self._mps:
            await self._mps.stop()
        rmtree(self._runtime_dir, ignore_errors=True)


def default_log_dir(name: str) -> Path:
    """The default folder of engine logs, below the user's state folder."""
    return paths.state_dir() / f"logs-{name}"
