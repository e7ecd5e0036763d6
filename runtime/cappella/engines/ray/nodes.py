"""The nodes of a Ray cluster, with the memory of each as its own machine tells it."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cappella.config import Ray, Server
from cappella.engines.ray import connection
from cappella.errors import ConfigError
from cappella.placement import cluster, gpu_kinds
from cappella.placement.machine import Device, Machine

TIMEOUT_S = 180.0


@dataclass(frozen=True, slots=True)
class Nodes:
    """The cluster as one machine. `left_out` has the addresses of those nodes that `server.may_reach` lacks, by name."""

    machine: Machine
    left_out: Mapping[str, str]

    @property
    def warnings(self) -> Sequence[str]:
        """A line for each node that was left out."""
        return [
            f"left out: {name}, whose address {host} is not in server.may_reach" for name, host in self.left_out.items()
        ]


def read(ray: Ray, server: Server) -> Nodes:
    """Ask all living nodes that the server may reach. Raises ConfigError, with the name of a node that does not answer."""
    place = f"placement.ray.address: {ray.address}"
    command = [sys.executable, "-m", "cappella.engines.ray.list_nodes", ray.address]
    command += map(str, server.may_reach)
    env = connection.environment(ray, server)
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, env=env, timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ConfigError(place, f"no answer within {TIMEOUT_S:g} s", _HINT) from error
    if done.returncode:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it said nothing"]
        raise ConfigError(place, f"the cluster cannot be read: {said[-1][:300]}", _HINT)
    found = json.loads(done.stdout.splitlines()[-1])
    allowed = {name: node for name, node in found.items() if "machine" in node}
    left_out = {name: node["host"] for name, node in found.items() if name not in allowed}
    if not allowed:
        addresses = ", ".join(sorted(set(left_out.values()))) or "none"
        raise ConfigError(place, f"server.may_reach has no node's address: {addresses}", "Add those that may be used")
    return Nodes(cluster.joined({name: _machine(node["machine"]) for name, node in allowed.items()}), left_out)


_HINT = "Start Ray with token authentication, on this machine too: see `cappella docs cluster`"


def _machine(told: Mapping[str, Any]) -> Machine:
    devices = [Device(**{**each, **_of_gpu(each)}) for each in told["devices"]]
    return Machine(devices, told["gpu"], told["slow_in_16_bits"])


def _of_gpu(told: Mapping[str, Any]) -> Mapping[str, Any]:
    kind, capability = told["kind"], told["capability"]
    return {"kind": kind and gpu_kinds.named(kind["name"]), "capability": capability and tuple(capability)}
