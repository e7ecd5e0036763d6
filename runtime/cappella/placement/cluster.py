"""A cluster as one machine for the plan: the devices of all its nodes, numbered through."""

import re
from collections.abc import Mapping
from dataclasses import replace

from cappella.errors import ConfigError
from cappella.placement import machine
from cappella.placement.machine import Device, Machine

MAX_NODES = 64
_NAMED = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*):(.+)")


def joined(nodes: Mapping[str, Machine]) -> Machine:
    """One machine with the devices of these nodes, by name; where some have GPUs, those without any are left out."""
    gpu = any(node.gpu for node in nodes.values())
    devices: list[Device] = []
    for name, node in nodes.items():
        for device in node.devices if node.gpu == gpu else ():
            there = f"{name} {f'GPU {device.index}' if gpu else device.name}"
            where = {"name": there, "index": len(devices), "node": name, "index_there": device.index}
            devices.append(replace(device, **where))  # type: ignore[arg-type]
    # Their NUMA nodes count on each machine anew, and its own processes are bound there.
    devices = [replace(device, numa_node=None) for device in devices]
    slow = not gpu and any(node.slow_in_16_bits for node in nodes.values())
    return Machine(devices, gpu=gpu, slow_in_16_bits=slow)


def described(text: str) -> Machine:
    """The cluster of a text such as `a:8x80GiB,b:2x24GiB+H100`. Raises ConfigError."""
    place, hint = f"--nodes {text}", "Write the nodes with their GPUs, as in a:8x80GiB,b:2x24GiB+1xL40S"
    nodes: dict[str, Machine] = {}
    for part in text.split(","):
        found = _NAMED.fullmatch(part.strip())
        if found is None:
            raise ConfigError(place, f"{part.strip()!r} is not a node and its GPUs", hint)
        name, gpus = found.groups()
        if name in nodes:
            raise ConfigError(place, f"there are two nodes {name}", "Give each node a name of its own")
        try:
            nodes[name] = machine.described(gpus)
        except ConfigError as error:
            raise ConfigError(place, f"node {name}: {error.problem}", error.hint) from error
    if len(nodes) > MAX_NODES:
        raise ConfigError(place, f"{len(nodes)} nodes are too many", f"Plan for {MAX_NODES} at most")
    return joined(nodes)
