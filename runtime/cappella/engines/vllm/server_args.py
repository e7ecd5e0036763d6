"""The command line and the sealed environment of a vLLM server."""

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cappella.config import Model, paths
from cappella.placement import adapters
from cappella.placement.planner import Placed
from cappella.sealing import variables

# Well above the client's KEEP_ALIVE_S: a server that closes an idle connection just as the client
# writes to it loses that call.
SERVER_KEEP_ALIVE_S = 600


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
    sealed = {**variables.sealed_environment(os.environ, package_root), **keep_alive, **compiled}
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
