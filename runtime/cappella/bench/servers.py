"""The servers of a benchmark: Cappella's, and plain vLLM ones beside it. All end with the benchmark."""

import asyncio
import os
import re
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path

import aiohttp

from cappella.config import Config
from cappella.engines.process.guardian import end_with_parent
from cappella.engines.vllm import server_args
from cappella.errors import ConfigError
from cappella.placement.machine import has_gpu

START_TIMEOUT_S = 1800.0
STOP_TIMEOUT_S = 30.0
POLL_S = 0.5
# vLLM's default on a CPU is half of the memory, for each server.
PLAIN_CPU_KV_GIB = "1"


class Child:
    """A server process that ends with the benchmark; `log` receives its output."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    @classmethod
    @asynccontextmanager
    async def running(cls, command: Sequence[str], env: Mapping[str, str], log: Path) -> "AsyncIterator[Child]":
        """Run until the context ends: then SIGTERM, and after `STOP_TIMEOUT_S` SIGKILL for the process group."""
        log.parent.mkdir(parents=True, exist_ok=True)
        bench = os.getpid()
        with log.open("wb") as sink:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=env,
                start_new_session=True,
                preexec_fn=lambda: end_with_parent(bench, signal.SIGTERM),
            )
        try:
            yield cls(process, log)
        finally:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    @property
    def alive(self) -> bool:
        return self._process.returncode is None

    def did_not_start(self, name: str) -> ConfigError:
        """An error with the last line of the log."""
        lines = self._log.read_text(errors="replace").strip().splitlines() or ["no output"]
        return ConfigError(name, f"did not start: {lines[-1][:300]}", f"See {self._log}")


@asynccontextmanager
async def gateway(config: Path, log_dir: Path, options: Sequence[str] = ()) -> AsyncIterator[str]:
    """The address of `cappella serve` on a free port, with every engine ready. Raises ConfigError if it does not start."""
    log = log_dir / "gateway.log"
    command = [sys.executable, "-m", "cappella", "serve", str(config), "--port", "0", "--log-dir", str(log_dir)]
    command += options
    async with Child.running(command, os.environ, log) as server, aiohttp.ClientSession() as http:
        yield await _address_when_ready(http, server, log)


@asynccontextmanager
async def plain_servers(config: Config, log_dir: Path) -> AsyncIterator[Mapping[str, str]]:
    """One vLLM server per model with its default flags, on a TCP port each; their addresses by model.

    Only settings without which they could not run are set: context length and share of the memory.
    """
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        env = {**server_args.environment(None), "VLLM_CPU_KVCACHE_SPACE": PLAIN_CPU_KV_GIB}
        urls: dict[str, str] = {}
        servers: dict[str, Child] = {}
        for name, model in config.local.items():
            port = free_port()
            urls[name] = f"http://127.0.0.1:{port}"
            arguments = ["--model", str(model.weights), "--served-model-name", name, "--host", "127.0.0.1"]
            arguments += ["--port", str(port)]
            if model.max_model_len is not None:
                arguments += ["--max-model-len", str(model.max_model_len)]
            if has_gpu():
                arguments += ["--gpu-memory-utilization", f"{0.9 / len(config.models):.2f}"]
            command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *arguments]
            servers[name] = await stack.enter_async_context(Child.running(command, env, log_dir / f"{name}.log"))
            if has_gpu():
                # On a GPU, two servers that start together mis-measure each other's memory.
                await until_healthy(http, urls[name], name, servers[name])
        for name, server in servers.items():
            await until_healthy(http, urls[name], name, server)
        yield urls


async def until_healthy(http: aiohttp.ClientSession, url: str, name: str, server: Child) -> None:
    """Wait. Raises ConfigError if the server ends or takes too long."""
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and server.alive:
        if await _status(http, f"{url}/health") == 200:
            return
        await asyncio.sleep(POLL_S)
    raise server.did_not_start(f"the plain server of {name}")


async def _address_when_ready(http: aiohttp.ClientSession, server: Child, log: Path) -> str:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and server.alive:
        address = re.search(r"Gateway on (http://\S+);", log.read_text())
        if address and await _all_up(http, address[1]):
            return address[1]
        await asyncio.sleep(POLL_S)
    raise server.did_not_start("the gateway")


async def _all_up(http: aiohttp.ClientSession, url: str) -> bool:
    try:
        async with http.get(f"{url}/ready") as reply:
            engines = (await reply.json())["engines"].values()
            return all(engine["state"] in ("ready", "asleep") for engine in engines)
    except aiohttp.ClientError:
        return False


async def _status(http: aiohttp.ClientSession, url: str) -> int | None:
    try:
        async with http.get(url) as reply:
            return reply.status
    except aiohttp.ClientError:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
