"""Engine processes: their command line, their sealed environment, their start, their end."""

import asyncio
import importlib.util
import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from signal import SIGKILL
from typing import Any

from cappella.config import Model, paths
from cappella.engines import crash_reason, log_files
from cappella.engines.process import guardian
from cappella.engines.startup_log import StartupLog
from cappella.placement import adapters
from cappella.placement.planner import Placed
from cappella.sealing import variables

# Well above the client's KEEP_ALIVE_S: a server that closes an idle connection just as the client
# writes to it loses that call.
SERVER_KEEP_ALIVE_S = 600

STOP_TIMEOUT_S = guardian.GRACE_S + 5.0
"""Then the keeper itself has failed, and its group is killed from here."""
KILL_TIMEOUT_S = 5.0
"""A process may be stuck in the kernel, where no signal reaches it."""

LAST_WORDS = 12
MARK_INTERVAL_S = 30.0
"""What an engine logged long before its end is not the reason for it."""


class ForkServer:
    """The process that every engine with the environment `env` is forked from; see fork_server.py.

    It starts with the first engine, and anew if it was killed. `log` receives what `module` prints as it is imported.
    """

    def __init__(self, module: str, env: Mapping[str, str], log: Path) -> None:
        self._module = module
        self._env = env
        self._log = log
        self._starting = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None
        self._orders: socket.socket | None = None

    async def fork(self, arguments: Sequence[str], folder: Path, log: Path) -> "EngineProcess":
        """Start an engine in a private `folder`, made anew: the socket of an earlier life would be in the way."""
        rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        log.parent.mkdir(parents=True, exist_ok=True)
        log_files.rotate(log)
        async with self._starting:
            orders = await self._running()
        ours, theirs = socket.socketpair()
        with theirs, log.open("wb") as sink, suppress(BrokenPipeError):
            order = json.dumps([str(folder), list(arguments)]).encode()
            socket.send_fds(orders, [order], [theirs.fileno(), sink.fileno()])
        forked_from = self._process.pid if self._process else None
        return EngineProcess(*await asyncio.open_connection(sock=ours), log, self._log, forked_from)

    async def close(self) -> None:
        """End it; engines live on."""
        if self._process and self._orders:
            self._orders.close()
            with suppress(ProcessLookupError):
                self._process.kill()
            with suppress(TimeoutError):
                async with asyncio.timeout(KILL_TIMEOUT_S):
                    await self._process.wait()

    async def _running(self) -> socket.socket:
        """The socket for orders."""
        if self._process and self._orders and self._process.returncode is None:
            return self._orders
        await self.close()
        self._orders, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, self._log.open("wb") as sink:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cappella.engines.process.fork_server", str(os.getpid()), self._module),
                stdin=theirs.fileno(),
                stdout=sink,
                stderr=sink,
                env=self._env,
                start_new_session=True,
            )
        return self._orders


class EngineProcess:
    """A running engine server under its keeper, which holds the other end of the line; `log` receives all it prints.

    `exit_code` is the server's, once the keeper has told it: negative for a signal that killed it. `logged_error` says
    that `reason` found one.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        log: Path,
        fork_server_log: Path,
        forked_from: int | None = None,
    ) -> None:
        self.log = log
        self.keeper_pid: int | None = None
        self.exit_code: int | None = None
        self.logged_error = False
        self.startup = StartupLog()
        self._well = [(time.monotonic(), 0)]
        self._fork_server_log = fork_server_log
        self._forked_from = forked_from
        self._reader = reader
        self._line = writer
        self._ended = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        """Until the line ends, and the keeper with it: its process id is the first thing that it says."""
        try:
            if said := await self._reader.readline():
                self.keeper_pid = int(said)
                self.exit_code = _exit_code(await self._reader.read())
            else:
                self.log = self._fork_server_log
        except ConnectionError:
            pass
        finally:
            self._line.close()

    @property
    def starting_group(self) -> int | None:
        """The process group in which its start goes on: at first that of the fork server, which imports."""
        return self.keeper_pid or self._forked_from

    @property
    def running(self) -> bool:
        return not self._ended.done()

    async def wait(self, timeout_s: float | None = None) -> None:
        """Until it has ended, or for so long."""
        await asyncio.wait({self._ended}, timeout=timeout_s)

    async def stop(self, timeout_s: float | None = None) -> None:
        """End the engine and everything it started: gently, and by force after `timeout_s`."""
        with suppress(OSError):
            self._line.write_eof()
        await self.wait(STOP_TIMEOUT_S if timeout_s is None else timeout_s)
        if self.running:
            await self.kill()

    async def kill(self) -> None:
        """End the whole process group at once. One that even SIGKILL does not end within seconds is given up."""
        self.kill_group()
        # A keeper that is yet to be forked finds this end closed, and does not begin.
        self._line.close()
        await self.wait(KILL_TIMEOUT_S)
        self._ended.cancel()
        await self.wait()

    def kill_group(self) -> None:
        """Send SIGKILL, and wait for nothing."""
        if self.keeper_pid is not None:
            with suppress(ProcessLookupError):
                os.killpg(self.keeper_pid, SIGKILL)

    def note_well(self) -> None:
        """It is well now: an error that it logged some time before is not the one that it dies of."""
        now = time.monotonic()
        if now - self._well[-1][0] >= MARK_INTERVAL_S:
            with suppress(OSError):
                self._well = [self._well[-1], (now, self.log.stat().st_size)]

    async def reason(self) -> str:
        """Why it ended, in one line."""
        return await asyncio.to_thread(self._reason)

    async def error(self) -> str | None:
        """The error that it logged lately, if there is one."""
        found = await asyncio.to_thread(lambda: crash_reason.find_error(self._tail()))
        return found.reason if found else None

    def last_words(self) -> list[str]:
        """The part of the log that ends with that error; without one, the end of the log."""
        log = self._tail()
        found = crash_reason.find_error(log)
        return list(found.lines) if found else log[-LAST_WORDS:] or ["it printed nothing"]

    def _reason(self) -> str:
        with suppress(OSError):
            self.startup.read(self.log)
        log = self._tail()
        error = crash_reason.find_error(log)
        self.logged_error = error is not None
        return crash_reason.tell_exit(
            self.exit_code,
            error.reason if error else None,
            log[-1].strip()[: crash_reason.MAX_REASON_CHARACTERS] if log else None,
        )

    def _tail(self) -> list[str]:
        try:
            return crash_reason.tail(self.log, self._well[0][1])
        except OSError:
            # Somebody may have taken it away.
            return []


def _exit_code(said: bytes) -> int | None:
    """As the keeper told it, if it came to that."""
    try:
        return int(said)
    except ValueError:
        return None


def arguments(
    name: str, model: Model, placed: Placed, uds: Path, naps: bool = False, numa_nodes: Sequence[int] = ()
) -> list[str]:
    """The vLLM server's arguments for one model, with exactly the memory that it was given.

    One that `naps` can sleep; with `numa_nodes`, one for each of its GPUs, it computes next to them.
    """
    args: dict[str, Any] = {
        "model": str(model.weights),
        "served_model_name": name,
        "uds": str(uds),
        "max_model_len": model.max_model_len,
        "max_num_seqs": model.max_num_seqs,
        "max_num_batched_tokens": placed.step_tokens,
        "kv_cache_memory_bytes": placed.kv_cache_bytes,
        "kv_cache_dtype": model.kv_cache_dtype,
        "tensor_parallel_size": len(placed.gpus),
        # With an exact KV size this serves one check alone, at start: that so much of the card is free. The default
        # would refuse the second engine on a card.
        "gpu_memory_utilization": 0.01,
        "enable_sleep_mode": naps,
        "numa_bind": bool(numa_nodes),
        "numa_bind_nodes": list(numa_nodes) or None,
        "dtype": model.dtype,
        "load_format": "safetensors",
        "enforce_eager": model.enforce_eager,
        "enable_prompt_tokens_details": True,
        "disable_uvicorn_access_log": True,
        "disable_fastapi_docs": True,
        # This backend alone takes a schema's own word for its white space: see wire.SPACING.
        "structured_outputs_config": {"backend": "guidance"},
        # Images come inside the request: an address to fetch one from would be a way out.
        "allowed_media_domains": "none.invalid",
        "enable_auto_tool_choice": model.tool_parser is not None,
        "tool_call_parser": model.tool_parser,
        "reasoning_parser": model.reasoning_parser,
        **_adapters(model),
        "speculative_config": _prompt_lookup(model.prompt_lookup_tokens),
        "per_request_spec_decode_metrics": "summary" if model.prompt_lookup_tokens else None,
        **{_named(key, value): value is False or value for key, value in model.engine_args.items()},
    }
    return [flag for key, value in args.items() if value is not None for flag in _flag(key, value)]


def _adapters(model: Model) -> dict[str, Any]:
    if not model.adapters:
        return {}
    modules = [f"{name}={path}" for name, path in model.adapters.items()]
    rank = adapters.served_rank(model)
    return {"enable_lora": True, "lora_modules": modules, "max_loras": len(modules), "max_lora_rank": rank}


def _prompt_lookup(tokens: int | None) -> Mapping[str, Any] | None:
    if tokens is None:
        return None
    return {"method": "ngram", "num_speculative_tokens": tokens, "prompt_lookup_min": 2, "prompt_lookup_max": 4}


def environment(
    threads: int | None, eager: bool = False, gpus: Sequence[int] | None = None, naps: bool = False
) -> dict[str, str]:
    """This process's environment, sealed. With `threads` (on a CPU) the engine may use that many; else these GPUs.

    A server that `naps` has the commands for it, which vLLM keeps for private sockets such as ours.
    """
    package_root = str(Path(__file__).parents[3])
    keep_alive = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(SERVER_KEEP_ALIVE_S)}
    # Else torch would put what it compiled where each start begins with nothing.
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(paths.cache_dir() / "inductor")}
    sealed = {**variables.sealed(os.environ, package_root), **keep_alive, **compiled}
    if threads is None and gpus is None:
        return sealed
    if threads is None:
        # By the order of the bus, as NVML counts them: CUDA's own order begins with the fastest.
        ours = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus or ()))}
        # Where flashinfer is missing, vLLM would look for its sampler all the same.
        sampler = {} if importlib.util.find_spec("flashinfer") else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
        return {**sealed, **ours, **sampler, "VLLM_SERVER_DEV_MODE": str(int(naps))}
    # Bound to cores, several engines would all be bound to the same ones.
    on_cpu = {**sealed, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    # Prompt lookup runs in numba, which would set OpenMP's threads for all else too: answers took five times as long.
    on_cpu["NUMBA_NUM_THREADS"] = str(threads)
    # Though eager, vLLM would compile two functions of its sampler with g++ at their first calls: 10 s of a core.
    return {**on_cpu, "TORCH_COMPILE_DISABLE": "1"} if eager else on_cpu


def _named(key: str, value: Any) -> str:
    """What is switched off has a flag of its own."""
    return ("no_" if value is False else "") + key.replace("-", "_")


def _flag(key: str, value: Any) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [flag, json.dumps(value) if isinstance(value, Mapping) else str(value)]
