"""Connects a process of its own to a Ray cluster; only such a process imports Ray."""

import importlib.util
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cappella.config import Ray, Server
from cappella.errors import ConfigError
from cappella.sealing import guard, variables

TOKEN_MODE = {"RAY_AUTH_MODE": "token"}
"""Ray's variable that asks everybody for the token."""
# Ray would hide all GPUs from an actor that reserves none; which ones it takes, the plan has decided.
WORKER = {"RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES": "1", **variables.SEAL}


def environment(ray: Ray, server: Server) -> dict[str, str]:
    """The sealed environment of a process that connects to the cluster. Raises ConfigError if Ray is not installed."""
    found = importlib.util.find_spec("ray")
    if found is None or found.origin is None:
        raise ConfigError("placement.ray", "Ray is not installed", "Install the extra: pip install 'cappella[ray]'")
    package_root = str(Path(__file__).parents[3])
    sealed = variables.sealed_environment(os.environ, package_root)
    # Ray may lie in a folder of its own.
    python_path = os.pathsep.join((sealed["PYTHONPATH"], str(Path(found.origin).parents[1])))
    token = {"RAY_AUTH_TOKEN_PATH": str(ray.token_file)} if ray.token_file else {}
    allowed = {guard.ALLOWED: ",".join(map(str, server.may_reach))}
    return {**sealed, **TOKEN_MODE, **token, **allowed, "PYTHONPATH": python_path}


def connect(address: str) -> Any:
    """Connect this process to the cluster; returns the module `ray`. Raises its errors."""
    ray = importlib.import_module("ray")
    ray.init(address=address, namespace="cappella", log_to_driver=False, configure_logging=False)
    return ray


def alive(ray: Any) -> Mapping[str, Mapping[str, Any]]:
    """The living nodes by name, as Ray describes them. Nodes that share a name have the beginning of their id behind it."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    names = Counter(node["NodeName"] for node in nodes)
    return {
        node["NodeName"] if names[node["NodeName"]] == 1 else f"{node['NodeName']}-{node['NodeID'][:6]}": node
        for node in nodes
    }


def on_node(ray: Any, node_id: str) -> Mapping[str, Any]:
    """The options of an actor or a task on this node, in a sealed environment; it reserves nothing."""
    strategies = importlib.import_module("ray.util.scheduling_strategies")
    where = strategies.NodeAffinitySchedulingStrategy(node_id, soft=False)
    return {"num_cpus": 0, "scheduling_strategy": where, "runtime_env": {"env_vars": WORKER}}
