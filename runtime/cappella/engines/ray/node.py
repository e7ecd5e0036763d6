"""The actor on a node: it starts one server there, tells of its output, and ends with it."""

import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import BinaryIO

from cappella.engines import backends
from cappella.engines.gpu_memory import GpuMemory
from cappella.engines.launcher import Launcher, ServerProcess
from cappella.engines.ray import connection, digests
from cappella.engines.ray.order import Order
from cappella.placement import gpus as installed_gpus
from cappella.sealing import guard
from cappella.version import __version__

POLL_S = 0.2
RAYLET_POLL_S = 1.0
WAIT_S = 2.0
"""How long a call of `follow` waits for news."""
MAX_PART_BYTES = 1 << 20
LOG = "engine.log"
MAX_LOG_BYTES = 4 << 20
"""What has been told of a longer log is cut off: the gateway keeps it."""


class NodeError(Exception):
    """Why this node does not start the server."""


@dataclass(frozen=True, slots=True)
class Part:
    """What a server has printed since the last one, and whether it has ended, with its exit code if it is known."""

    text: bytes
    ended: bool
    exit_code: int | None


class NodeEngine:
    """One server on this node."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="cappella-"))
        self._launcher: Launcher | None = None
        self._process: ServerProcess | None = None
        self._log: BinaryIO | None = None

    async def start(self, order: Order, host: str, gpus: Sequence[int]) -> str:
        """Start the server; returns the URL of its API. Raises NodeError, also if the weights are not those of the gateway."""
        try:
            return await self._start(order, host, gpus)
        except BaseException:
            await self.stop()
            raise

    async def _start(self, order: Order, host: str, gpus: Sequence[int]) -> str:
        guard.install([*order.may_reach, host])
        threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
        _require_same(order)
        await self._require_weights(order)
        if gpus:
            free = partial(installed_gpus.free_bytes, gpus)
            await GpuMemory(free, order.total_bytes, gpus=gpus).require_room()
        private = self._folder / "engine"
        self._launcher = backends.launcher(_environment(order, host, gpus), private / "fork-server.log")
        port = _free_port(host)
        arguments = [*order.arguments, *backends.listening(host, port)]
        self._process = await self._launcher.launch(arguments, private, private / LOG)
        # It stays readable when the guardian has removed the folder.
        self._log = (private / LOG).open("rb+")
        return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"

    async def follow(self) -> Part:
        """Wait a short time for something to tell."""
        process, log = self._process, self._log
        if process is None or log is None:
            return Part(b"", True, None)
        give_up_at = time.monotonic() + WAIT_S
        while not (text := log.read(MAX_PART_BYTES)) and process.running and time.monotonic() < give_up_at:
            await process.wait(POLL_S)
        # What it printed between that reading and its end is read by the next call.
        ended = not text and not process.running and not (text := log.read(MAX_PART_BYTES))
        if ended and process.log.name != LOG and process.log.is_file():
            # It was never forked: the fork server knows why.
            text = process.log.read_bytes()
        if log.tell() > MAX_LOG_BYTES:
            log.truncate(0)
            log.seek(0)
        return Part(text, ended, process.exit_code)

    async def stop(self) -> int | None:
        """End the server and all its processes; returns its exit code."""
        if self._process:
            await self._process.stop()
        if self._launcher:
            await self._launcher.close()
        if self._log:
            self._log.close()
        rmtree(self._folder, ignore_errors=True)
        return self._process.exit_code if self._process else None

    async def _require_weights(self, order: Order) -> None:
        found = await digests.read(map(Path, order.folders))
        if wrong := digests.differences(order.digests, found):
            more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
            raise NodeError(f"the weights are not those of the gateway: {wrong[0]}{more}")


def _end_with(raylet: int) -> None:
    """Kill this process when Ray's own of this node has ended: the guardian then ends the server."""
    while os.getppid() == raylet:
        time.sleep(RAYLET_POLL_S)
    os.kill(os.getpid(), signal.SIGKILL)


def _require_same(order: Order) -> None:
    if os.environ.get("RAY_AUTH_MODE") != "token":
        raise NodeError("Ray asks nobody for a token on this node: start it with RAY_AUTH_MODE=token")
    if order.version != __version__:
        raise NodeError(f"Cappella is {__version__} on this node and {order.version} at the gateway")
    backends.require_installed()


def _environment(order: Order, host: str, gpus: Sequence[int]) -> dict[str, str]:
    # Ray sets it to 1 for a worker that reserves no CPU.
    os.environ.pop("OMP_NUM_THREADS", None)
    threads = None if gpus else order.threads or max(1, (os.cpu_count() or 1) // order.engines)
    env = backends.server_environment(threads, order.eager, gpus or None)
    allowed = ",".join([*order.may_reach, host])
    return {**_without_ray(env), backends.KEY: order.key, guard.ALLOWED: allowed}


def _without_ray(env: dict[str, str]) -> dict[str, str]:
    """A server has nothing to do with the cluster, and must not hold its token."""
    sealed = {key: value for key, value in env.items() if not key.startswith("RAY_")}
    return {**sealed, **{key: env[key] for key in ("RAY_USAGE_STATS_ENABLED",) if key in connection.WORKER}}


def _free_port(host: str) -> int:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])
