"""The environment of engine processes, which keeps their libraries off the network.

Each variable was found in the code that reads it: vLLM 0.32, its dependencies, flashinfer and Triton. The vocabulary of
gpt-oss is inside oss-harmony, which the locks include; tiktoken downloads one only for model code that names it, and
such code is disabled.
"""

import os
from collections.abc import Mapping

from cappella.sealing import guard

# Set before vLLM is imported, because some are read at import.
SEAL = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    # vLLM checks here whether kernels can be downloaded, and flashinfer downloads them: an address that does not exist.
    "FLASHINFER_CUBINS_REPOSITORY": "file:///sealed/",
    "FLASHINFER_NO_DOWNLOAD": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Otherwise the processes of a model would listen on the address of this machine's host name.
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    # How many a request may have, `server.limits.stops` says.
    "VLLM_MAX_STOP_STRINGS": "4096",
    "VLLM_LOGGING_LEVEL": "INFO",
    # Else vLLM asks for a forced or strict tool call by a structural tag, which the `guidance` backend cannot read: each
    # would be a 400. So it asks by the JSON schema of the tools.
    "VLLM_ENFORCE_STRICT_TOOL_CALLING": "0",
    "PYTHONSAFEPATH": "1",
    "PYTHONUNBUFFERED": "1",
}

# Proxies, tracing, remote caches and vLLM's own settings of the operator's shell must not reach this deployment.
_PREFIXES = ("VLLM_", "OTEL_", "HF_TOKEN", "HUGGING_FACE_", "WANDB_", "TORCHINDUCTOR_REDIS_", "KINETO_")
_NAMES = {"http_proxy", "https_proxy", "all_proxy", "ftp_proxy", "pythonpath", "pythonstartup", guard.ALLOWED.lower()}
_NAMES |= {f"torchinductor_{kind}_remote_cache" for kind in ("fx_graph", "autotune", "bundled_autotune", "autograd")}
_NAMES |= {"triton_cache_manager", "triton_remote_cache_backend"}


def sealed_environment(inherited: Mapping[str, str], package_root: str) -> dict[str, str]:
    """The inherited environment without variables that could open connections, plus SEAL and the guard."""
    kept = {
        key: value for key, value in inherited.items() if not key.startswith(_PREFIXES) and key.lower() not in _NAMES
    }
    return {**kept, **SEAL, "PYTHONPATH": os.pathsep.join((guard.STARTUP, package_root))}


def clear_otel_variables() -> None:
    """Remove OpenTelemetry's variables from this process, so that only the config decides what is exported."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        del os.environ[name]
