"""Builds the engines of a deployment: client, command line, environment and lifecycle of each, not yet started."""

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path

from cappella.config import Config, Model, RemoteModel, paths
from cappella.engines import backends, memory_use
from cappella.engines.base import HoldAwake, SingleServer
from cappella.engines.context_size import LONGEST_TOKEN_CHARS, ContextSize
from cappella.engines.deployment import Deployment
from cappella.engines.gpu_memory import GpuMemory, Sleep, SleepTurns
from cappella.engines.idleness import Idleness
from cappella.engines.launcher import Launcher
from cappella.engines.lifecycle import Lifecycle
from cappella.engines.mps import Mps
from cappella.engines.ray.launcher import RayLaunchers
from cappella.engines.remote import Attachment
from cappella.engines.replicas.replica import Calls, Replica
from cappella.engines.replicas.replicas import Replicas
from cappella.engines.sanitize import Sanitizer
from cappella.engines.spec import Backoff, EngineSpec
from cappella.engines.start_times import StartTimes
from cappella.engines.status import EngineStatus
from cappella.engines.swapping import SwapScheduler
from cappella.engines.waiting import Tell
from cappella.errors import ConfigError
from cappella.placement import folder, gpus, machine
from cappella.placement.planner import Placed
from cappella.sealing import guard

SLEEP_MEMORY_SHARE = 0.8
"""Of the free main memory, for the weights of engines that sleep in place."""
HOST_BLOCKS_FACTOR = 1.3
"""What a sleeper takes of main memory, by its weights: torch rounds each pinned block up to a power of two."""
SLEEP_FREES_SHARE = 0.9
"""Of its weights and KV cache: an engine that frees less does not sleep in place."""
SLEEP_KEEPS_FACTOR = 2
"""By what the plan says: an engine that keeps more leaks, as some do at each sleep (vllm#21336), and does not sleep in place."""
MAX_SOCKET_PATH_BYTES = 107
"""Linux's limit for a Unix socket."""


class EngineBuilder:
    """Builds engines whose private folders lie in `runtime_dir`, and that share one launcher per environment."""

    def __init__(
        self,
        config: Config,
        runtime_dir: Path,
        log_dir: Path,
        mps: Mps | None,
        swap_scheduler: SwapScheduler | None,
        backoff: Backoff,
        health_interval_s: float,
    ) -> None:
        self._runtime_dir = runtime_dir
        self._log_dir = log_dir
        self._mps = mps
        self._swap_scheduler = swap_scheduler
        self._backoff = backoff
        self._health_interval_s = health_interval_s
        self._may_reach = ",".join(map(str, config.server.may_reach))
        # On a GPU, too: with a KV cache of given size, no server measures how much memory is free as it starts.
        self._start_slots = asyncio.Semaphore(os.cpu_count() or 1)
        self._in_sleep_mode: frozenset[str] = frozenset()
        self._sleep_turns = SleepTurns()
        self._builds = 0
        self._cluster: RayLaunchers | None = None
        self.launchers: dict[frozenset[tuple[str, str]], Launcher] = {}

    def add_engines(self, new: Deployment, names: Iterable[str]) -> None:
        """Add the engines of these models to a deployment. Raises ConfigError."""
        names = set(names)
        on = new.plan.machine
        self._in_sleep_mode = _engines_in_sleep_mode(new) if on.gpu and not on.is_cluster else frozenset()
        if on.is_cluster and self._cluster is None:
            self._cluster = backends.cluster_launchers(new.config, new.plan)
            # Each node has processors of its own.
            self._start_slots = asyncio.Semaphore(len(new.plan.placed))
        for name, remote in new.config.remote.items():
            if name in names:
                self._attach(new, name, remote)
        for name in (name for name in new.config.local if name in names):
            self._add_local(new, name)
        self._builds += 1

    def _attach(self, new: Deployment, name: str, model: RemoteModel) -> None:
        clients = backends.remote_engines(name, model)
        for server, client in clients.items():
            new.attachments[server] = Attachment(client, model, has_others=len(clients) > 1)
        if len(clients) == 1:
            new.engines[name] = clients[name]
        else:
            replicas = (Replica(server, client, model.max_num_seqs) for server, client in clients.items())
            new.engines[name] = Replicas(name, model.capabilities, replicas)

    def _add_local(self, new: Deployment, name: str) -> None:
        model = new.config.local[name]
        clients = {server: self._start_later(new, name, server) for server in model.servers(name)}
        if len(clients) == 1:
            new.engines.update(clients[name])
            return
        calls = {server: Calls() for server in clients}
        for called in (name, *model.adapters):
            replicas = (Replica(each, clients[each][called], model.max_num_seqs, calls[each]) for each in clients)
            new.engines[called] = Replicas(name, model.capabilities, replicas)

    def _start_later(self, new: Deployment, name: str, server: str) -> Mapping[str, SingleServer]:
        """The clients of one engine of a model, by the names that it has; the deployment gets its lifecycle."""
        model, placed = new.config.local[name], new.plan.placed[server]
        # Engines of an earlier deployment may still have folders of the same names.
        private = self._runtime_dir / (f"{server}.{self._builds}" if self._builds else server)
        _require_short_path(name, private)
        socket = private / "engine.sock"
        found = folder.inspect(name, model.weights, model.card)
        sanitizer = Sanitizer(found.special_tokens, found.markup)
        names = (name, *model.adapters)
        status = EngineStatus(server)
        idleness = None
        if model.sleep_after_s is not None:
            idleness = Idleness(model.sleep_after_s, status, lambda: new.lifecycles[server].wake("idle"))
        hold_awake = self._hold_awake(placed, idleness)
        keep_awake = idleness.keep_awake if idleness else nullcontext
        context = ContextSize(model.context_tokens, found.longest_token_chars or LONGEST_TOKEN_CHARS)
        address = backends.NOWHERE if self._cluster else socket
        clients = backends.local_engines(
            address, names, status, sanitizer, model.capabilities, hold_awake, context, keep_awake
        )
        launcher = self._on_node(new, name, server, clients.values()) or self._launcher(
            self._environment(new, name, server)
        )
        spec = self._spec(new, name, server, private, socket)
        lifecycle = Lifecycle(clients[name], launcher, spec, self._start_slots, idleness)
        new.lifecycles[server] = lifecycle
        if placed.turn:
            lifecycle.start_asleep()
        return clients

    def _hold_awake(self, placed: Placed, idleness: Idleness | None) -> HoldAwake | None:
        """What each call of the engine waits for: its swap group's turn, then its own wake."""
        turn = None
        if self._swap_scheduler and placed.turn is not None:
            turn = partial(self._swap_scheduler.hold_awake, placed.turn)
        if idleness is None:
            return turn
        return partial(_in_both, turn, idleness.hold_awake) if turn else idleness.hold_awake

    def _environment(self, new: Deployment, name: str, server: str) -> Mapping[str, str]:
        model, placed = new.config.local[name], new.plan.placed[server]
        share = max(1, (os.cpu_count() or 1) // len(new.config.servers_of(new.config.local)))
        threads = None if new.plan.machine.gpu else model.cpu_threads or share
        sleep_mode = server in self._in_sleep_mode
        env = backends.server_environment(threads, model.enforce_eager, placed.gpus, sleep_mode)
        return {**env, **(self._mps.environment if self._mps else {}), guard.ALLOWED: self._may_reach}

    def _spec(self, new: Deployment, name: str, server: str, private: Path, socket: Path) -> EngineSpec:
        model, placed, on = new.config.local[name], new.plan.placed[server], new.plan.machine
        uds = None if on.is_cluster else socket
        sleep_mode, free_graphs = server in self._in_sleep_mode, new.config.placement.sleepers_free_graphs
        numa_nodes = on.numa_nodes(placed.gpus)
        return EngineSpec(
            arguments=backends.server_arguments(name, model, placed, uds, sleep_mode, free_graphs, numa_nodes, on.gpu),
            folder=private,
            log=self._log_dir / f"{server}.log",
            memory=self._gpu_memory(new, placed, sleep_mode) if on.gpu and not on.is_cluster else None,
            start_times=StartTimes(paths.state_dir() / "start-times.json", _files(model, new.fingerprints[name])),
            backoff=self._backoff,
            hung_after_s=model.hung_after_s,
            health_interval_s=self._health_interval_s,
        )

    def _gpu_memory(self, new: Deployment, placed: Placed, sleep_mode: bool) -> GpuMemory:
        count, keeps_graphs = len(placed.gpus), not new.config.placement.sleepers_free_graphs
        asleep = new.plan.footprints[placed.model].asleep_bytes(count, keeps_graphs)
        frees = int(SLEEP_FREES_SHARE * (placed.weight_bytes + placed.kv_cache_bytes)) * count
        sleep = Sleep(frees, SLEEP_KEEPS_FACTOR * asleep * count) if sleep_mode else None
        free, held = partial(gpus.free_bytes, placed.gpus), memory_use.gpu_bytes
        return GpuMemory(free, placed.total_bytes, sleep, placed.gpus, held, self._sleep_turns)

    def _on_node(self, new: Deployment, name: str, server: str, engines: Iterable[SingleServer]) -> Launcher | None:
        """What starts one of the model's servers on a node of the plan's cluster, if it has one."""
        if self._cluster is None:
            return None
        model, placed = new.config.local[name], new.plan.placed[server]
        node = new.plan.machine.node_of(placed.gpus)
        beside = sum(new.plan.machine.node_of(each.gpus) == node for each in new.plan.placed.values())
        launcher = self._cluster.launcher(server, model, placed, beside, backends.movers(engines))
        self.launchers[frozenset({("server", server)})] = launcher
        return launcher

    def _launcher(self, env: Mapping[str, str]) -> Launcher:
        """The one for this environment: some variables are read as modules are imported."""
        # No engine's log has such a name, since a model's name begins with a letter or a digit.
        log = self._log_dir / f"_fork-server-{len(self.launchers)}.log"
        return self.launchers.setdefault(frozenset(env.items()), backends.launcher(env, log))


def _require_short_path(name: str, private: Path) -> None:
    """Raises ConfigError for a folder in which the server could not bind its sockets."""
    if len(os.fsencode(private)) + backends.MAX_SOCKET_NAME_BYTES > MAX_SOCKET_PATH_BYTES:
        problem = f"the paths of its sockets, in {private}, would be longer than Linux allows"
        raise ConfigError(f"models.{name}", problem, "Set TMPDIR to a shorter path, or give the model a shorter name")


@asynccontextmanager
async def _in_both(outer: HoldAwake, inner: HoldAwake, tell: Tell) -> AsyncIterator[None]:
    async with outer(tell), inner(tell):
        yield


def _engines_in_sleep_mode(new: Deployment) -> frozenset[str]:
    """The engines that sleep, by turns or when idle, and can in place: as many as main memory has room for what they put there.

    An engine whose processes are bound to NUMA nodes needs the room on these.
    """
    rooms: dict[int | None, float] = {None: machine.own_memory().devices[0].free_bytes * SLEEP_MEMORY_SHARE}
    names = set()
    for name, model in ((server, new.config.local[new.config.model_of[server]]) for server in new.plan.placed):
        placed = new.plan.placed[name]
        if placed.turn is None and model.sleep_after_s is None:
            continue
        graphs = new.plan.footprints[name].graph_bytes() * new.config.placement.sleepers_free_graphs
        size = (placed.weight_bytes + graphs) * HOST_BLOCKS_FACTOR
        nodes = new.plan.machine.numa_nodes(placed.gpus)
        takes: dict[int | None, float] = {None: size * len(placed.gpus)}
        for node in nodes:
            rooms.setdefault(node, machine.node_free_bytes(node) * SLEEP_MEMORY_SHARE)
            takes[node] = takes.get(node, 0) + size
        if all(rooms[place] >= taken for place, taken in takes.items()):
            rooms.update({place: rooms[place] - taken for place, taken in takes.items()})
            names.add(name)
    return frozenset(names)


def _files(model: Model, fingerprint: folder.Fingerprint) -> str:
    """The key of a model's start times: the path and the size of its files."""
    return f"{model.weights.resolve()}: {sum(size_bytes for _, size_bytes, _ in fingerprint)} bytes"
