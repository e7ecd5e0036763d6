"""The machine or the cluster that `cappella plan` plans for."""

import sys

from cappella.config import Config
from cappella.engines import backends
from cappella.errors import ConfigError
from cappella.placement import cluster, machine
from cappella.placement.machine import Machine


def machine_of(config: Config, gpus: str | None, nodes: str | None, on_cluster: bool) -> Machine | None:
    """The one that is described, or the config's Ray cluster; None for this machine. Raises ConfigError."""
    if (gpus is not None) + (nodes is not None) + on_cluster > 1:
        problem = "they exclude each other"
        raise ConfigError("--gpus, --nodes and --cluster", problem, "Give one of them; --nodes has the GPUs of each")
    if nodes is not None:
        return cluster.described(nodes)
    if gpus is not None:
        return machine.described(gpus)
    if not on_cluster and config.placement.ray is None:
        return None
    found = backends.cluster(config)
    for warning in found.warnings:
        print(warning, file=sys.stderr)
    return found.machine
