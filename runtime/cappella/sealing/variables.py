"""The environment of an engine's processes, so that no library in them looks for the network.

Each name was found where it is read: in vLLM 0.32, in what it brings along, or in flashinfer and Triton. The vocabulary
of gpt-oss lies inside oss-harmony, which our locks hold; tiktoken fetches one only if a model's own code asks for it by
name, and that is off.
"""

import os
from collections.abc import Mapping

from cappella.sealing import guard

# Set before vLLM is imported, since some of these are read at import.
SEAL = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    # vLLM asks there whether kernels could be downloaded, and flashinfer downloads them: an address that is none.
    "FLASHINFER_CUBINS_REPOSITORY": "file:///sealed/",
    "FLASHINFER_NO_DOWNLOAD": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Else the processes of a model would listen to each other at the address that this machine's name stands for.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "VLLM_LOGGING_LEVEL": "INFO",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
}

# Proxies, tracing, caches on other machines and vLLM's own switches are the operator's shell's, not this deployment's.
_PREFIXES = ("VLLM_", "OTEL_", "HF_TOKEN", "HUGGING_FACE_", "WANDB_", "TORCHINDUCTOR_REDIS_", "KINETO_")
_NAMES = {"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "pythonpath", "pythonstartup", guard.ALLOWED.lower()}
_NAMES |= {f"torchinductor_{kind}_remote_cache" for kind in ("fx_graph", "autotune", "bundled_autotune", "autograd")}
_NAMES |= {"triton_cache_manager", "triton_remote_cache_backend"}


def sealed(inherited: Mapping[str, str], package_root: str) -> dict[str, str]:
    """What was inherited, without what could open the seal, and with the seal and the guard."""
    kept = {
        key: value for key, value in inherited.items() if not key.startswith(_PREFIXES) and key.lower() not in _NAMES
    }
    return {**kept, **SEAL, "PYTHONPATH": os.pathsep.join((guard.STARTUP, package_root))}


def forget_tracing() -> None:
    """Take out of this process's own environment what OpenTelemetry would read: where to, by which code, and whether."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
