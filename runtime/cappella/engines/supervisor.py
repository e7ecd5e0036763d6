"""Owns the engine processes: starts them all, and stops them all."""

import asyncio
import importlib.util
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from shutil import rmtree

from cappella.config import Config
from cappella.engines import process, weights
from cappella.engines.lifecycle import Backoff, Lifecycle
from cappella.engines.process import ForkServer
from cappella.engines.vllm import VllmEngine
from cappella.errors import ConfigError
from cappella.types import EngineStatus

LAUNCHER = "cappella.engines.launcher"

# Measured on the CPU build, without weights and KV cache, when an engine had a worker process too, which it has no
# more: 0.5 GiB for one engine after some hundred runs, and as much once for what all are forked from.
CPU_OVERHEAD_BYTES = 1 << 30


class Supervisor:
    """`engines` maps each model's name to its engine, ready or not. Raises ConfigError for weights it cannot serve."""

    def __init__(self, config: Config, log_dir: Path, backoff: Backoff = Backoff()) -> None:
        if importlib.util.find_spec("vllm") is None:
            mend = "Install the extra cpu or gpu, or use scripts/run"
            raise ConfigError("this Python", "vLLM is not installed", mend)
        gpu = has_gpu()
        if not gpu:
            require_memory(config, available_memory_bytes())
        self._runtime_dir = Path(tempfile.mkdtemp(prefix="cappella-"))
        # On a GPU, two servers that start together mis-measure each other's memory.
        start_slots = asyncio.Semaphore(1 if gpu else os.cpu_count() or 1)
        self.engines: dict[str, VllmEngine] = {}
        self.lifecycles: dict[str, Lifecycle] = {}
        self._judges = {ensemble.judge.model for ensemble in config.ensembles.values()}
        self._tasks: list[asyncio.Task[None]] = []
        self._fork_servers: dict[frozenset[tuple[str, str]], ForkServer] = {}
        for name, model in config.models.items():
            folder = self._runtime_dir / name
            socket = folder / "engine.sock"
            special_tokens = weights.inspect(name, model.weights).special_tokens
            threads = None if gpu else model.cpu_threads or max(1, (os.cpu_count() or 1) // len(config.models))
            self.engines[name] = VllmEngine(socket, EngineStatus(name), special_tokens, model.traits)
            self.lifecycles[name] = Lifecycle(
                self.engines[name],
                self._fork_server(process.environment(threads, model.enforce_eager), log_dir),
                process.arguments(name, model, socket),
                folder,
                log_dir / f"{name}.log",
                start_slots,
                backoff,
            )

    @property
    def statuses(self) -> Mapping[str, EngineStatus]:
        return {name: engine.status for name, engine in self.engines.items()}

    def _fork_server(self, env: Mapping[str, str], log_dir: Path) -> ForkServer:
        """The one for this environment: some of it is read at import."""
        # No engine's log has such a name: a model's begins with a letter or a digit.
        log = log_dir / f"_fork-server-{len(self._fork_servers)}.log"
        return self._fork_servers.setdefault(frozenset(env.items()), ForkServer(LAUNCHER, env, log))

    def start(self) -> None:
        """Begin to start every engine, in the background; judges first, since no ensemble answers without its own."""
        in_turn = sorted(self.lifecycles, key=lambda name: name not in self._judges)
        self._tasks = [asyncio.create_task(self.lifecycles[name].run()) for name in in_turn]

    async def stop(self) -> None:
        """End every engine and remove the runtime directory."""
        for task in self._tasks:
            task.cancel()
        # Engines that are still waiting to be forked are not waited for.
        await asyncio.gather(*(fork_server.close() for fork_server in self._fork_servers.values()))
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for engine in self.engines.values():
            await engine.close()
        rmtree(self._runtime_dir, ignore_errors=True)


def default_log_dir(name: str) -> Path:
    """Where engines' logs go if nobody says: below the user's state folder."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return state / "cappella" / f"logs-{name}"


def has_gpu() -> bool:
    return Path("/dev/nvidiactl").exists()


def available_memory_bytes() -> int:
    """Memory that new processes can take without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].split()[0]) * 1024


def require_memory(config: Config, available_bytes: int) -> None:
    """Raise ConfigError if the engines cannot all fit in this machine's memory."""
    needed = {
        name: weights.inspect(name, model.weights).weight_bytes + model.kv_cache_bytes + CPU_OVERHEAD_BYTES
        for name, model in config.models.items()
    }
    if sum(needed.values()) > available_bytes:
        parts = ", ".join(f"{name} {size / 2**30:.1f}" for name, size in needed.items())
        raise ConfigError(
            "models",
            f"they need {sum(needed.values()) / 2**30:.1f} GiB ({parts}) and {available_bytes / 2**30:.1f} GiB is free",
            "Lower kv_cache_bytes, or take fewer or smaller models",
        )
