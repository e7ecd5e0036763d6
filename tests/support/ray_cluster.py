"""A Ray cluster of two nodes on this machine, as a process of its own: `python -m support.ray_cluster FOLDER MEMORY_BYTES`.

It prints one line of JSON with the address and the process id of each node's raylet, and stops them when its standard input ends.
"""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module, util
from pathlib import Path
from typing import Any

INSTALLED = util.find_spec("ray") is not None
TOKEN = "a-token-of-at-least-thirty-two-characters"
NODES = ("near", "far")
FAR_HOST = "127.0.0.2"
AGENT_PORTS = ("metrics_agent_port", "dashboard_agent_listen_port", "runtime_env_agent_port")
STOP_TIMEOUT_S = 120


@dataclass(frozen=True)
class RayCluster:
    """`raylets` are process ids by node."""

    address: str
    raylets: dict[str, int]
    token_file: Path


@contextmanager
def ray_cluster(folder: Path, memory_bytes: int) -> Iterator[RayCluster]:
    """A cluster that asks for a token and has that much memory on each node."""
    token_file = folder / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    found = util.find_spec("ray")
    assert found is not None
    assert found.origin is not None
    own = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token_file),
        "RAY_USAGE_STATS_ENABLED": "0",
        # There it writes its address, whatever `temp_dir` says.
        "RAY_TMPDIR": str(folder),
        "RAY_agent_register_timeout_ms": "120000",
    }
    # Else engines would be starved by everything else that the machine does.
    own["RAY_worker_niceness"] = "0"
    paths = [
        str(Path(__file__).parents[1]),
        str(Path(__file__).parents[2] / "runtime"),
        str(Path(found.origin).parents[1]),
    ]
    command = [sys.executable, "-m", "support.ray_cluster", str(folder / "ray"), str(memory_bytes)]
    env = {**os.environ, **own, "PYTHONPATH": os.pathsep.join(paths)}
    with (folder / "cluster.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=env, text=True
        )
    assert process.stdin
    assert process.stdout
    try:
        lines = (line for line in process.stdout if line.startswith('{"address"'))
        told = json.loads(next(lines))
        yield RayCluster(told["address"], told["raylets"], token_file)
    finally:
        process.stdin.close()
        process.wait(STOP_TIMEOUT_S)
        process.stdout.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main(folder: str, memory_bytes: int) -> None:
    """Start the nodes, and stop them when standard input ends."""
    cluster_utils: Any = import_module("ray.cluster_utils")
    shared = {"num_cpus": 1, "memory": memory_bytes, "object_store_memory": 80 << 20}
    # With ports of its own choice a node waits 15 s for its agents' files, which is too short on a busy machine.
    first, second = ({name: free_port() for name in AGENT_PORTS} for _ in NODES)
    head = {**shared, **first, "include_dashboard": False, "node_name": NODES[0], "temp_dir": folder}
    # An address of its own: who connects to the cluster belongs to a node of its own machine, by address, and ends with that.
    far = {"node_name": NODES[1], "node_ip_address": FAR_HOST}
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=head)
    try:
        nodes = {NODES[0]: cluster.head_node, NODES[1]: cluster.add_node(**shared, **second, **far)}
        raylets = {name: node.all_processes["raylet"][0].process.pid for name, node in nodes.items()}
        print(json.dumps({"address": cluster.address, "raylets": raylets}), flush=True)
        sys.stdin.read()
    finally:
        cluster.shutdown()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
