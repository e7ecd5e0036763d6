"""One engine process: its command line, its sealed environment, its start, its end."""

import asyncio
import json
import os
import re
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from signal import SIGKILL
from typing import Any

from cappella.config import Model

# Well above the client's KEEP_ALIVE_S: a server that closes an idle connection just as the client
# writes to it loses that call.
SERVER_KEEP_ALIVE_S = 600

# Nothing may leave the machine: set before vLLM is imported, since some of these are read at import.
SEAL = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "VLLM_LOGGING_LEVEL": "INFO",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
}
# Proxies, tracing and vLLM's own switches are the operator's shell's, not this deployment's.
_UNSEALED_PREFIXES = ("VLLM_", "OTEL_", "HF_TOKEN", "HUGGING_FACE_", "WANDB_")
_UNSEALED = {"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "pythonpath", "pythonstartup"}

STAGES = (
    ("non-default args", "reading the model's config", 0.3),
    ("Initializing a V1 LLM engine", "starting the engine core", 0.5),
    ("Starting to load model", "loading weights", 0.7),
    ("Loading weights took", "making the KV cache", 0.8),
    ("init engine", "starting the server", 0.85),
    ("Starting vLLM server", "answering a first token", 0.95),
)
"""Marks in vLLM's log, the stage that begins there, and the share of the whole start that lies behind."""

# The last line of a traceback, with or without the prefix of vLLM's logger.
_ERROR = re.compile(r"(?:^|\] )[\w.]*(?:Error|Exception): ")


class EngineProcess:
    """A running engine server under its keeper; `log` receives all that it prints."""

    def __init__(self, keeper: asyncio.subprocess.Process, log: Path) -> None:
        self._keeper = keeper
        self._log = log

    @classmethod
    async def start(cls, command: list[str], folder: Path, env: Mapping[str, str], log: Path) -> "EngineProcess":
        """Start the command in a private `folder`, made anew: the socket of an earlier life would be in the way."""
        rmtree(folder, ignore_errors=True)
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        folder.mkdir(mode=0o700)
        log.parent.mkdir(parents=True, exist_ok=True)
        if log.exists():
            log.replace(log.with_suffix(".previous.log"))
        with log.open("wb") as sink:
            keeper = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "cappella.engines.keeper", str(folder), *command),
                stdin=asyncio.subprocess.PIPE,
                stdout=sink,
                stderr=sink,
                env={**env, "TMPDIR": str(folder)},
                start_new_session=True,
            )
        return cls(keeper, log)

    @property
    def running(self) -> bool:
        return self._keeper.returncode is None

    async def wait(self) -> None:
        await self._keeper.wait()

    async def stop(self) -> None:
        """End the engine and everything it started: gently, and after the keeper's grace by force."""
        if self._keeper.stdin is not None:
            self._keeper.stdin.close()
        await self._keeper.wait()

    async def kill(self) -> None:
        """End the whole process group at once."""
        with suppress(ProcessLookupError):
            os.killpg(self._keeper.pid, SIGKILL)
        await self._keeper.wait()

    def stage(self) -> tuple[str, float]:
        """How far the start has come, read from the log: a stage in words, and a share of the whole."""
        text = self._log.read_text(errors="replace")
        reached = [(stage, share) for mark, stage, share in STAGES if mark in text]
        return reached[-1] if reached else ("importing vLLM", 0.05)

    def reason(self) -> str:
        """Why it died, in one line: the first error in the log, since the later ones follow from it."""
        return self.last_words(1)[-1].split("] ", 1)[-1].strip()[:300]

    def last_words(self, lines: int = 12) -> list[str]:
        """The part of the log that ends with that error; without one, the end of the log."""
        log = [line for line in self._log.read_text(errors="replace").splitlines() if line.strip()]
        log = [line for line in log if not line.startswith("keeper:")] or ["it printed nothing"]
        first = next((number for number, line in enumerate(log) if _ERROR.search(line)), len(log) - 1)
        return log[max(0, first + 1 - lines) : first + 1]


def command(name: str, model: Model, socket: Path) -> list[str]:
    """The vLLM server's command line for one model."""
    args: dict[str, Any] = {
        "model": str(model.weights),
        "served_model_name": name,
        "uds": str(socket),
        "max_model_len": model.max_model_len,
        "max_num_seqs": model.max_num_seqs,
        "kv_cache_memory_bytes": int(model.kv_cache_bytes),
        # With an exact KV size this serves one check alone, at start: that so much of the card is free. The default
        # of 0.9 would refuse the second engine on a card.
        "gpu_memory_utilization": 0.05,
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
        **{key.replace("-", "_"): value for key, value in model.engine_args.items()},
    }
    flags = [flag for key, value in args.items() if value is not None for flag in _flag(key, value)]
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flags]


def environment(threads: int | None) -> dict[str, str]:
    """This process's environment, sealed. With `threads` (on a CPU) the engine may use that many."""
    kept = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(_UNSEALED_PREFIXES) and key.lower() not in _UNSEALED
    }
    package_root = str(Path(__file__).parents[2])
    keep_alive = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(SERVER_KEEP_ALIVE_S)}
    sealed = {**kept, **SEAL, **keep_alive, "PYTHONPATH": package_root}
    if threads is None:
        return sealed
    # Bound to cores, several engines would all be bound to the same ones.
    return {**sealed, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}


def _flag(key: str, value: Any) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    return [flag, json.dumps(value) if isinstance(value, Mapping) else str(value)]
