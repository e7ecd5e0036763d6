"""Owns the engine processes: starts them all, and stops them all."""

import asyncio
import importlib.util
import os
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from shutil import rmtree

from cappella.config import Config, Model
from cappella.engines import process
from cappella.engines.lifecycle import Backoff, GpuMemory, Lifecycle
from cappella.engines.mps import Mps
from cappella.engines.process import ForkServer
from cappella.engines.pulse import Pulse
from cappella.engines.turns import Turns
from cappella.engines.vllm import VllmEngine
from cappella.errors import ConfigError
from cappella.placement import advice, folder, gpus, machine
from cappella.placement.planner import Placed, Plan
from cappella.sealing import guard
from cappella.types import EngineStatus

LAUNCHER = "cappella.engines.launcher"
HOST_SHARE = 0.8
"""Of this machine's free memory, for the weights of those who sleep."""


class Supervisor:
    """`engines` maps each model's name to its engine, ready or not; `plan` says where each lies.

    Raises ConfigError for weights that cannot be served, and DoesNotFit for more of them than there is memory.
    """

    def __init__(self, config: Config, log_dir: Path, backoff: Backoff = Backoff()) -> None:
        if importlib.util.find_spec("vllm") is None:
            mend = "Install the extra cpu or gpu, or use scripts/run"
            raise ConfigError("this Python", "vLLM is not installed", mend)
        self.plan = advice.plan(config, machine.own())
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="cappella-"))
        self._log_dir = log_dir
        self._may_reach = ",".join(map(str, config.server.may_reach))
        self._mps = Mps(self._runtime_dir / "_mps") if config.placement.mps and self.plan.machine.gpu else None
        self._backoff = backoff
        # On a GPU, two servers that start together mis-measure each other's memory.
        self._start_slots = asyncio.Semaphore(1 if self.plan.machine.gpu else os.cpu_count() or 1)
        self._turns = Turns(len(self.plan.turns), self._change) if self.plan.turns else None
        self._nappers = _nappers(self.plan) if self.plan.machine.gpu else frozenset()
        self._judges = config.judges
        self._tasks: list[asyncio.Task[None]] = []
        self._fork_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
        self.engines: dict[str, VllmEngine] = {}
        self.lifecycles: dict[str, Lifecycle] = {}
        threads = max(1, (os.cpu_count() or 1) // len(config.models))
        for name, model in config.models.items():
            self._add(name, model, self.plan.placed[name], model.cpu_threads or threads)

    def _add(self, name: str, model: Model, placed: Placed, cpu_threads: int) -> None:
        """One engine, not yet started."""
        private = self._runtime_dir / name
        socket = private / "engine.sock"
        special_tokens = folder.inspect(name, model.weights).special_tokens
        seat = None if self._turns is None or placed.turn is None else partial(self._turns.seat, placed.turn)
        status, pulse = EngineStatus(name), Pulse()
        for called in (name, *model.adapters):
            self.engines[called] = VllmEngine(socket, status, special_tokens, model.traits, seat, called, pulse)
        gpu = self.plan.machine.gpu
        naps = name in self._nappers
        env = process.environment(None if gpu else cpu_threads, model.enforce_eager, placed.gpus, naps)
        env |= self._mps.environment if self._mps else {}
        env |= {guard.ALLOWED: self._may_reach}
        self.lifecycles[name] = Lifecycle(
            self.engines[name],
            self._fork_server(env),
            process.arguments(name, model, placed, socket, naps, self.plan.machine.numa_nodes(placed.gpus)),
            private,
            self._log_dir / f"{name}.log",
            self._start_slots,
            self._backoff,
            _gpu_memory(placed, naps) if gpu else None,
            model.hung_after_s,
        )
        if placed.turn:
            self.lifecycles[name].sleep_at_first()

    @property
    def statuses(self) -> Mapping[str, EngineStatus]:
        """Of the engines; an adapter has that of its model's."""
        return {name: self.engines[name].status for name in self.lifecycles}

    def _fork_server(self, env: Mapping[str, str]) -> ForkServer:
        """The one for this environment: some of it is read at import."""
        # No engine's log has such a name: a model's begins with a letter or a digit.
        log = self._log_dir / f"_fork-server-{len(self._fork_servers)}.log"
        return self._fork_servers.setdefault(frozenset(env.items()), ForkServer(LAUNCHER, env, log))

    async def start(self) -> None:
        """Begin to start every engine, in the background; judges first, since no ensemble answers without its own."""
        if self._mps:
            # It serves the GPUs as the bus counts them, as the engines do; what it was told itself would be told twice.
            env = process.environment(None, gpus=())
            del env["CUDA_VISIBLE_DEVICES"]
            await self._mps.start(env)
        in_turn = sorted(self.lifecycles, key=lambda name: name not in self._judges)
        self._tasks = [asyncio.create_task(self.lifecycles[name].run()) for name in in_turn]

    async def _change(self, old: int, new: int) -> None:
        """One turn goes to sleep, and then the other wakes: there is no room for both."""
        turns = self.plan.turns
        for name in turns[old]:
            # Not together: each is believed by what its GPUs have free after it.
            await self.lifecycles[name].sleep()
        await asyncio.gather(*(self.lifecycles[name].wake() for name in turns[new]))

    async def stop(self) -> None:
        """End every engine and remove the runtime directory."""
        for task in self._tasks:
            task.cancel()
        # Engines that are still waiting to be forked are not waited for.
        await asyncio.gather(*(fork_server.close() for fork_server in self._fork_servers.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self.engines.values():
            await engine.close()
        if self._mps:
            await self._mps.stop()
        rmtree(self._runtime_dir, ignore_errors=True)


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
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "cappella" / f"logs-{name}"
