"""`python -m cappella.engines.ray.list_nodes ADDRESS [MAY_REACH ...]` prints a cluster's nodes as JSON, by name.

Those whose address the gateway may reach are asked for their memory; on the others nothing runs.
"""

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from cappella.config import Server
from cappella.engines.ray import connection
from cappella.placement import machine
from cappella.sealing import guard

TIMEOUT_S = 120.0
"""For all nodes together, which are asked at once."""
MIN_TIMEOUT_S = 0.1


def measured() -> dict[str, Any]:
    """This machine, as JSON has it."""
    guard.install()
    return asdict(machine.own())


def main(address: str, may_reach: Sequence[str]) -> None:
    """Print the nodes as the last line. Ends with the name of a node that does not tell its memory."""
    ray, server = connection.connect(address), Server.model_validate({"may_reach": may_reach})
    task, nodes, give_up_at = ray.remote(measured), connection.alive(ray), time.monotonic() + TIMEOUT_S
    hosts = {name: node["NodeManagerAddress"] for name, node in nodes.items()}
    asked = {
        name: task.options(**connection.on_node(ray, node["NodeID"])).remote()
        for name, node in nodes.items()
        if server.may_connect_to(hosts[name])
    }
    told: dict[str, dict[str, Any]] = {name: {"host": host} for name, host in hosts.items()}
    for name, reference in asked.items():
        try:
            own = ray.get(reference, timeout=max(MIN_TIMEOUT_S, give_up_at - time.monotonic()))
        except Exception as error:  # noqa: BLE001 - whatever Ray and the node raise is why it does not tell
            cause = getattr(error, "cause", None) or error
            ray.shutdown()
            sys.exit(f"node {name} at {hosts[name]}: {type(cause).__name__}: {' '.join(str(cause).split())}")
        told[name]["machine"] = _limited(nodes[name], own)
    ray.shutdown()
    print(json.dumps(told))


def _limited(node: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    # What Ray may use of the main memory, as `ray start --memory` says.
    limit = int(node["Resources"].get("memory", 0))
    if not own["gpu"]:
        for device in own["devices"]:
            device["free_bytes"] = min(device["free_bytes"], limit)
    return own


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
