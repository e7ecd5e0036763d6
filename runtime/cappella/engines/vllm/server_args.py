"""The command line and the sealed environment of a vLLM server."""

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cappella.config import Model, paths
from cappella.engines.vllm import key_check
from cappella.placement import adapters
from cappella.placement.planner import Placed
from cappella.sealing import variables

# Well above the client's KEEP_ALIVE_S: if the server closed an idle connection just as the client writes to it, the call
# would be lost.
SERVER_KEEP_ALIVE_S = 600

# What a server prints must not quote requests: its own records go through log_filter.py, and these print beside them.
QUIET = {
    "VLLM_LOGGING_CONFIG_PATH": str(Path(__file__).with_name("logging.json")),
    "LLGUIDANCE_LOG_LEVEL": "0",
    # pydantic's warnings quote the value that they are about.
    "PYTHONWARNINGS": "ignore",
}

NOT_ASKED = {"video": 0, "audio": 0}
"""What no request brings: its encoders need no room, and Gemma 4 would be refused where a step is shorter than a video."""

FIXED = {
    # With an exact KV size this is only used in a check at start that so much of the GPU is free. The default would refuse
    # a second engine on a GPU.
    "gpu_memory_utilization": 0.01,
    "load_format": "safetensors",
    "enable_prompt_tokens_details": True,
    "disable_uvicorn_access_log": True,
    "disable_fastapi_docs": True,
    # Only this backend lets a schema set its white space: see protocol.SPACING. Where a schema sets none, as that of a
    # forced tool call, there is none: a small model may write nothing else.
    "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
    # Images come inside the request: fetching one from a URL would reach out of the machine.
    "allowed_media_domains": "none.invalid",
}
"""The same for every model."""

MAX_SOCKET_NAME_BYTES = 37
"""The longest name of a socket that vLLM creates in the engine's folder: a slash and a UUID."""


def arguments(
    name: str,
    model: Model,
    placed: Placed,
    uds: Path | None,
    sleep_mode: bool = False,
    sleepers_free_graphs: bool = False,
    numa_nodes: Sequence[int] = (),
    on_gpu: bool = False,
) -> list[str]:
    """The vLLM server's command line for one model, with exactly the memory that was planned for it.

    In `sleep_mode` it can sleep in place, where `sleepers_free_graphs` without its CUDA graphs; `numa_nodes` has one node for each of its GPUs, to which its workers are bound.
    Without the socket `uds` it listens as `listening` says.
    """
    args = {
        "model": str(model.weights),
        "served_model_name": name,
        "uds": None if uds is None else str(uds),
        **FIXED,
        **_size(model, placed),
        "enable_sleep_mode": sleep_mode,
        "sleep_mode_offload_cudagraph": sleep_mode and sleepers_free_graphs,
        "numa_bind": bool(numa_nodes),
        "numa_bind_nodes": list(numa_nodes) or None,
        "enforce_eager": model.enforce_eager,
        "runner": None if model.task == "generate" else "pooling",
        "enable_auto_tool_choice": model.tool_parser is not None,
        "tool_call_parser": model.tool_parser,
        "reasoning_parser": model.reasoning_parser,
        **_adapters(model),
        "language_model_only": placed.text_only,
        "limit_mm_per_prompt": NOT_ASKED if placed.takes_images else None,
        "speculative_config": _prompt_lookup(model.prompt_lookup_tokens, on_gpu),
        "per_request_spec_decode_metrics": "summary" if model.prompt_lookup_tokens else None,
    }
    flags = [flag for key, value in args.items() if value is not None for flag in _flag(key, value)]
    return flags + engine_flags(model.engine_args)


def listening(host: str, port: int) -> list[str]:
    """The flags of a server that listens on a network, to those only who send the key in its environment."""
    return [
        "--host",
        host,
        "--port",
        str(port),
        "--middleware",
        f"{key_check.__name__}.{key_check.RequireKey.__name__}",
    ]


def _size(model: Model, placed: Placed) -> dict[str, Any]:
    """What decides how much memory the server takes, as it was planned."""
    return {
        "max_model_len": model.context_tokens,
        "max_num_seqs": model.max_num_seqs,
        "max_num_batched_tokens": placed.step_tokens,
        # An encoder has none.
        "kv_cache_memory_bytes": placed.kv_cache_bytes or None,
        "kv_cache_dtype": model.kv_cache_dtype,
        "tensor_parallel_size": len(placed.gpus),
        "dtype": placed.dtype,
    }


def engine_flags(engine_args: Mapping[str, Any]) -> list[str]:
    """The flags of a model's `engine_args`."""
    named = {_flag_name(key, value): value is False or value for key, value in engine_args.items()}
    return [flag for key, value in named.items() for flag in _flag(key, value)]


def _adapters(model: Model) -> dict[str, Any]:
    if not model.adapters:
        return {}
    modules = [f"{name}={path}" for name, path in model.adapters.items()]
    rank = adapters.served_rank(model)
    return {"enable_lora": True, "lora_modules": modules, "max_loras": len(modules), "max_lora_rank": rank}


def _prompt_lookup(tokens: int | None, on_gpu: bool) -> Mapping[str, Any] | None:
    """On a GPU vLLM 0.32 looks up there by either name, and by this one its scheduler stays a step ahead of the GPU."""
    if tokens is None:
        return None
    method = "ngram_gpu" if on_gpu else "ngram"
    return {"method": method, "num_speculative_tokens": tokens, "prompt_lookup_min": 2, "prompt_lookup_max": 4}


def environment(
    threads: int | None, eager: bool = False, gpus: Sequence[int] | None = None, sleep_mode: bool = False
) -> dict[str, str]:
    """This process's environment, sealed, for an engine with that many `threads` on a CPU, or on these `gpus`.

    In `sleep_mode` the server gets vLLM's development endpoints: /sleep and /wake_up, safe on a private socket.
    """
    package_root = str(Path(__file__).parents[3])
    keep_alive = {"VLLM_HTTP_TIMEOUT_KEEP_ALIVE": str(SERVER_KEEP_ALIVE_S)}
    # By default torch puts compiled code into the temporary folder, which is empty at each start.
    compiled = {"TORCHINDUCTOR_CACHE_DIR": str(paths.cache_dir() / "inductor")}
    sealed = {**variables.sealed_environment(os.environ, package_root), **QUIET, **keep_alive, **compiled}
    if threads is None and gpus is None:
        return sealed
    if threads is None:
        # In the order of the PCI bus, like NVML's: CUDA's default order begins with the fastest.
        devices = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID", "CUDA_VISIBLE_DEVICES": ",".join(map(str, gpus or ()))}
        # vLLM would try flashinfer's sampler also where it is not installed.
        sampler = {} if importlib.util.find_spec("flashinfer") else {"VLLM_USE_FLASHINFER_SAMPLER": "0"}
        return {**sealed, **devices, **sampler, "VLLM_SERVER_DEV_MODE": str(int(sleep_mode))}
    # If bound to cores, several engines would be bound to the same ones.
    on_cpu = {**sealed, "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": str(threads)}
    # Prompt lookup runs in numba, which would also set OpenMP's threads: answers took five times as long.
    on_cpu["NUMBA_NUM_THREADS"] = str(threads)
    # Even in eager mode vLLM would compile two functions of its sampler with g++ at their first calls: 10 s of a core.
    return {**on_cpu, "TORCH_COMPILE_DISABLE": "1"} if eager else on_cpu


def _flag_name(key: str, value: Any) -> str:
    """The negative flag for False, such as no_enable_prefix_caching."""
    return ("no_" if value is False else "") + key.replace("-", "_")


def _flag(key: str, value: Any) -> list[str]:
    flag = "--" + key.replace("_", "-")
    if isinstance(value, bool):
        return [flag] if value else []
    if isinstance(value, list):
        return [flag, *map(str, value)]
    return [flag, json.dumps(value) if isinstance(value, Mapping) else str(value)]
