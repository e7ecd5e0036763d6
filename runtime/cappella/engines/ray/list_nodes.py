"""`python -m cappella.engines.ray.list_nodes ADDRESS` prints a cluster's nodes as JSON: the memory of each, by name."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from cappella.engines.ray import connection
from cappella.placement import machine
from cappella.sealing import guard


def measured() -> dict[str, Any]:
    """This machine, as JSON has it."""
    guard.install()
    return asdict(machine.own())


def main(address: str) -> None:
    """Print the nodes as the last line."""
    ray = connection.connect(address)
    task = ray.remote(measured)
    nodes = connection.alive(ray)
    asked = {name: task.options(**connection.on_node(ray, node["NodeID"])).remote() for name, node in nodes.items()}
    told = {name: _told(nodes[name], ray.get(reference)) for name, reference in asked.items()}
    ray.shutdown()
    print(json.dumps(told))


def _told(node: Mapping[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    # What Ray may use of the main memory, as `ray start --memory` says.
    limit = int(node["Resources"].get("memory", 0))
    if not own["gpu"]:
        for device in own["devices"]:
            device["free_bytes"] = min(device["free_bytes"], limit)
    return {"host": node["NodeManagerAddress"], "machine": own}


if __name__ == "__main__":
    main(sys.argv[1])
