"""Which nodes of a cluster are asked for their memory, and what is told of one that does not answer. Ray is scripted."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cappella.config import Ray, Server
from cappella.engines.ray import nodes
from cappella.engines.ray.nodes import Nodes
from cappella.errors import ConfigError

# Of Ray's API what reads a cluster, over the nodes in a file.
RAY = """
import json
from pathlib import Path

FOLDER = Path(__file__).parent
NODES = json.loads((FOLDER / "nodes.json").read_text())

def init(**options): pass
def shutdown(): pass
def nodes(): return [
    {"Alive": True, "NodeName": name, "NodeID": name, "NodeManagerAddress": node["host"], "Resources": {"memory": 1 << 30}}
    for name, node in NODES.items()
]

class remote:
    def __init__(self, task, node=None): self.node = node
    def options(self, scheduling_strategy, **other): return remote(None, scheduling_strategy.node)
    def remote(self):
        with (FOLDER / "asked").open("a") as asked:
            print(self.node, file=asked)
        return self.node

def get(node, timeout):
    answer = NODES[node]["answer"]
    if answer == "nothing":
        raise TimeoutError("Get timed out")
    if answer == "no Cappella":
        raise ModuleNotFoundError("No module named 'cappella'")
    memory = {"name": "memory", "index": 0, "total_bytes": 4 << 30, "free_bytes": 3 << 30, "numa_node": None, "kind": None,
              "capability": None, "linked": False, "node": None, "index_there": None}
    return {"devices": [memory], "gpu": False, "slow_in_16_bits": False}
"""
STRATEGIES = """
class NodeAffinitySchedulingStrategy:
    def __init__(self, node, soft): self.node = node
"""

Read = Callable[..., Nodes]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Read:
    """Reads a cluster of these nodes, by name with the address and the answer, from a server that may reach 10.0.0.1 and 10.0.0.2."""
    package = tmp_path / "ray"
    (package / "util").mkdir(parents=True)
    (package / "__init__.py").write_text(RAY)
    (package / "util" / "__init__.py").write_text("")
    (package / "util" / "scheduling_strategies.py").write_text(STRATEGIES)
    monkeypatch.syspath_prepend(str(tmp_path))

    def read_nodes(**told: tuple[str, str]) -> Nodes:
        found = {name: {"host": host, "answer": answer} for name, (host, answer) in told.items()}
        (package / "nodes.json").write_text(json.dumps(found))
        return nodes.read(Ray(), Server.model_validate({"may_reach": ["10.0.0.1", "10.0.0.2"]}))

    return read_nodes


def test_on_a_node_that_may_not_be_reached_nothing_runs_and_it_is_told(read: Read, tmp_path: Path) -> None:
    found = read(a=("10.0.0.1", "memory"), b=("10.0.0.9", "no Cappella"))
    assert [(each.node, each.free_bytes) for each in found.machine.devices] == [("a", 1 << 30)]
    assert (tmp_path / "ray" / "asked").read_text().split() == ["a"]
    assert found.left_out == {"b": "10.0.0.9"}
    (warning,) = found.warnings
    assert "b, whose address 10.0.0.9" in warning


@pytest.mark.parametrize("answer", ["nothing", "no Cappella"])
def test_a_node_that_does_not_tell_its_memory_is_named(read: Read, answer: str) -> None:
    with pytest.raises(ConfigError, match=r"node b at 10\.0\.0\.2: \w+Error: "):
        read(a=("10.0.0.1", "memory"), b=("10.0.0.2", answer))
