"""Owns the engine processes: starts them all, and stops them all."""

import asyncio
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from shutil import rmtree

from cappella.config import Config, Model, paths
from cappella.engines import backends, deployment
from cappella.engines.base import EngineServer
from cappella.engines.deployment import Change, Deployment
from cappella.engines.gpu_memory import GpuMemory
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.mps import Mps
from cappella.engines.process.process import ForkServer
from cappella.engines.remote import Attachment
from cappella.engines.sanitize import PlainText
from cappella.engines.spec import Backoff, EngineSpec
from cappella.engines.start_times import StartTimes
from cappella.engines.status import Action, EngineStatus
from cappella.engines.swapping import Turns
from cappella.engines.vllm import server_args
from cappella.errors import ActionRefused, ConfigError, RunsElsewhere, UnknownEngine
from cappella.placement import advice, folder, gpus, machine
from cappella.placement.planner import Placed, Plan
from cappella.sealing import guard

LAUNCHER = "cappella.engines.vllm.server_main"
HOST_SHARE = 0.8
"""Of this machine's free memory, for the weights of those who sleep."""
ORDER_BEGINS_S = 0.2
"""An order that is done by then needs no second look; others go on."""
STOP_TIMEOUT_S = 30.0
"""An engine's own end takes less; by then every process group is killed."""
MAX_SOCKET_PATH_BYTES = 107
"""Of a Unix socket, to Linux."""
VLLMS_OWN_BYTES = 37
"""Of the addresses that vLLM makes up in an engine's folder: a slash and a UUID."""


class Supervisor:
    """`engines` maps each model's name to its engine, ready or not; `plan` says where each lies.

    Raises ConfigError for weights that cannot be served, and DoesNotFit for more of them than there is memory.
    """

    def __init__(
        self, config: Config, log_dir: Path, backoff: Backoff = Backoff(), health_interval_s: float = 1.0
    ) -> None:
        if config.local and importlib.util.find_spec("vllm") is None:
            hint = "Install the extra cpu or gpu, or use scripts/run"
            raise ConfigError("this Python", "vLLM is not installed", hint)
        own = machine.own()
        plan = advice.plan(config, own)
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="cappella-"))
        self._log_dir = log_dir
        self._may_reach = ",".join(map(str, config.server.may_reach))
        self._mps = Mps(self._runtime_dir / "_mps") if config.placement.mps and plan.machine.gpu else None
        self._backoff = backoff
        self._health_interval_s = health_interval_s
        # On a GPU, two servers that start together mis-measure each other's memory.
        self._start_slots = asyncio.Semaphore(1 if plan.machine.gpu else os.cpu_count() or 1)
        self._turns = Turns(len(plan.turns), self._take_turns) if plan.turns else None
        self._nappers = _nappers(plan) if plan.machine.gpu else frozenset()
        self._tasks: dict[Lifecycle | Attachment, asyncio.Task[None]] = {}
        self._orders: set[asyncio.Task[None]] = set()
        self._fork_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
        self._fleets = 0
        self.deployment = Deployment(config, own, plan, deployment.stamps(config), {}, {}, {})
        try:
            self._add(self.deployment, config.models)
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
        """Of the engines; an adapter has that of its model's."""
        return self.deployment.statuses

    def _add(self, new: Deployment, names: Iterable[str]) -> None:
        """Engines of a fleet, not yet started. Those of an earlier one may still have folders of the same names."""
        names = set(names)
        for name, remote in new.config.remote.items():
            if name in names:
                new.engines[name] = engine = backends.attached(name, remote)
                new.attachments[name] = Attachment(engine, remote)
        threads = max(1, (os.cpu_count() or 1) // max(1, len(new.config.local)))
        for name in new.config.local.keys() & names:
            model, placed = new.config.local[name], new.plan.placed[name]
            private = self._runtime_dir / (f"{name}.{self._fleets}" if self._fleets else name)
            _require_short(name, private)
            self._add_one(new, name, placed, private, model.cpu_threads or threads)
        self._fleets += 1

    def _add_one(self, new: Deployment, name: str, placed: Placed, private: Path, cpu_threads: int) -> None:
        model = new.config.local[name]
        socket = private / "engine.sock"
        found = folder.inspect(name, model.weights, model.card)
        plain = PlainText(found.special_tokens, found.markup)
        seat = None if self._turns is None or placed.turn is None else partial(self._turns.seat, placed.turn)
        called = (name, *model.adapters)
        new.engines.update(backends.own(socket, called, EngineStatus(name), plain, model.capabilities, seat))
        gpu = new.plan.machine.gpu
        naps = name in self._nappers
        env = server_args.environment(None if gpu else cpu_threads, model.enforce_eager, placed.gpus, naps)
        env |= self._mps.environment if self._mps else {}
        env |= {guard.ALLOWED: self._may_reach}
        spec = EngineSpec(
            arguments=server_args.arguments(
                name, model, placed, socket, naps, new.plan.machine.numa_nodes(placed.gpus)
            ),
            folder=private,
            log=self._log_dir / f"{name}.log",
            memory=_gpu_memory(placed, naps) if gpu else None,
            start_times=StartTimes(paths.state_dir() / "start-times.json", _files(model, new.stamps[name])),
            backoff=self._backoff,
            hung_after_s=model.hung_after_s,
            health_interval_s=self._health_interval_s,
        )
        new.lifecycles[name] = Lifecycle(new.engines[name], self._fork_server(env), spec, self._start_slots)
        if placed.turn:
            new.lifecycles[name].sleep_at_first()

    def _fork_server(self, env: Mapping[str, str]) -> ForkServer:
        """The one for this environment: some of it is read at import."""
        # No engine's log has such a name: a model's begins with a letter or a digit.
        log = self._log_dir / f"_fork-server-{len(self._fork_servers)}.log"
        return self._fork_servers.setdefault(frozenset(env.items()), ForkServer(LAUNCHER, env, log))

    async def start(self) -> None:
        """Begin to start every engine, in the background; judges first, since no ensemble answers without its own."""
        if self._mps:
            # It serves the GPUs as the bus counts them, as the engines do; what it was told itself would be told twice.
            env = server_args.environment(None, gpus=())
            del env["CUDA_VISIBLE_DEVICES"]
            await self._mps.start(env)
        self.begin(self.deployment)

    def begin(self, new: Deployment) -> None:
        """Begin to start those of its engines that do not run yet, in the background; judges first."""
        judges = new.config.judges
        lives: dict[str, Lifecycle | Attachment] = {**new.attachments, **new.lifecycles}
        for name in sorted(lives, key=lambda name: name not in judges):
            if lives[name] not in self._tasks:
                self._tasks[lives[name]] = asyncio.create_task(lives[name].run())

    def compare(self, config: Config) -> Change:
        """What another config would change. Raises what it would raise at a start."""
        return deployment.change(self.deployment, config, machine.own())

    def prepare(self, change: Change) -> Deployment:
        """The engines of another config: those that stay, and new ones that `begin` starts."""
        old = self.deployment
        lifecycles = {name: each for name, each in old.lifecycles.items() if name in change.stays}
        attachments = {name: each for name, each in old.attachments.items() if name in change.stays}
        stay = old.config.names_of(change.stays)
        engines = {name: engine for name, engine in old.engines.items() if name in stay}
        new = Deployment(change.config, old.machine, change.plan, change.stamps, engines, lifecycles, attachments)
        self._add(new, change.comes)
        return new

    async def end(self, old: Deployment, names: Iterable[str]) -> None:
        """End some engines of a fleet, with all that they are called by."""
        for name in names:
            task = self._tasks.pop(old.attachments.get(name) or old.lifecycles[name], None)
            if task:
                task.cancel()
                await asyncio.wait({task})
            for called in old.config.names_of([name]):
                await old.engines[called].close()

    def actions(self, name: str) -> Sequence[Action]:
        """What an operator may ask of an engine now."""
        return self.lifecycles[name].actions if name in self.lifecycles else ()

    async def act(self, name: str, action: str) -> None:
        """Begin what an operator asks of an engine; its status tells what comes of it.

        Raises UnknownEngine, and ActionRefused for what its state does not allow.
        """
        if name in self.deployment.attachments:
            raise RunsElsewhere(name)
        lifecycle = self.lifecycles.get(name)
        if lifecycle is None:
            raise UnknownEngine(name, list(self.lifecycles))
        if action not in lifecycle.actions:
            raise ActionRefused(name, self.statuses[name].state, action, lifecycle.actions)
        if action == "start":
            lifecycle.reset_failures()
            self._tasks[lifecycle] = asyncio.create_task(lifecycle.run())
            return
        orders = {"sleep": lifecycle.stop, "wake": lifecycle.resume, "restart": lifecycle.restart}
        order = asyncio.create_task(orders[action]())
        self._orders.add(order)
        order.add_done_callback(self._orders.discard)
        await asyncio.wait({order}, timeout=ORDER_BEGINS_S)

    def process_groups(self) -> Mapping[str, int]:
        """Of the engines that have processes now."""
        groups = {name: each.process_group for name, each in self.lifecycles.items()}
        return {name: group for name, group in groups.items() if group is not None}

    async def _take_turns(self, old: int, new: int) -> None:
        """One turn goes to sleep, and then the other wakes: there is no room for both."""
        turns = self.plan.turns
        for name in turns[old]:
            # Not together: each is believed by what its GPUs have free after it.
            await self.lifecycles[name].sleep()
        await asyncio.gather(*(self.lifecycles[name].wake() for name in turns[new]))

    async def stop(self) -> None:
        """End every engine and remove the runtime directory, within a minute whatever the engines do."""
        tasks = {*self._orders, *self._tasks.values()}
        for task in tasks:
            task.cancel()
        # Engines that are still waiting to be forked are not waited for.
        await asyncio.gather(*(fork_server.close() for fork_server in self._fork_servers.values()))
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


def _require_short(name: str, private: Path) -> None:
    """Raises ConfigError for a folder in which vLLM could not bind its sockets, which it would say in words of its own."""
    if len(os.fsencode(private)) + VLLMS_OWN_BYTES > MAX_SOCKET_PATH_BYTES:
        problem = f"the paths of its sockets, in {private}, would be longer than Linux takes"
        raise ConfigError(f"models.{name}", problem, "Set TMPDIR to a shorter path, or give the model a shorter name")


def _nappers(plan: Plan) -> frozenset[str]:
    """Who can sleep without ending: as many as this machine's own memory has room for their weights."""
    room = machine.own_memory().devices[0].free_bytes * HOST_SHARE
    out = set()
    for placed in plan.placed.values():
        room -= placed.weight_bytes * len(placed.gpus) * (placed.turn is not None)
        if placed.turn is not None and room >= 0:
            out.add(placed.model)
    return frozenset(out)


def _gpu_memory(placed: Placed, naps: bool) -> GpuMemory:
    """A sleep that frees less than nine tenths of the weights and the KV cache is none."""
    frees = int(0.9 * (placed.weight_bytes + placed.kv_cache_bytes))
    return GpuMemory(partial(gpus.free_bytes, placed.gpus), placed.total_bytes, frees if naps else None)


def default_log_dir(name: str) -> Path:
    """Where engines' logs go if nobody says: below the user's state folder."""
    return paths.state_dir() / f"logs-{name}"


def _files(model: Model, stamp: folder.Fingerprint) -> str:
    """What tells a model's start from others': where its files lie, and how large they are."""
    return f"{model.weights.resolve()}: {sum(size_bytes for _, size_bytes, _ in stamp)} bytes"
