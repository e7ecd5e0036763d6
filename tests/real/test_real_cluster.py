"""Real engines on the two nodes of a real Ray cluster on this machine, and what is left when each part of it is killed."""

import json
import os
import shutil
import signal
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from support.ray_cluster import FAR_HOST, INSTALLED, RayCluster, ray_cluster
from support.real_deployment import (
    QUICK_RESTARTS,
    Deployment,
    alive,
    command_of,
    deployed,
    parent_of,
    shipped_config,
    wait_for,
)

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.long,
    pytest.mark.skipif(not INSTALLED, reason="needs the extra ray"),
]

MODELS = ("soprano", "conductor")
RESTART_TIMEOUT_S = 400.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[RayCluster]:
    # Ray's sockets lie below it: a folder of pytest would be too long a path.
    with tempfile.TemporaryDirectory(prefix="ray-") as folder, ray_cluster(Path(folder), 3 << 30) as started:
        yield started


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copies: by their paths the processes of this test are known from others."""
    folder = tmp_path_factory.mktemp("weights")
    for name, model in shipped_config("demo.yaml")["models"].items():
        if name in MODELS:
            shutil.copytree(model["weights"], folder / name)
    return folder


def config_of(cluster: RayCluster, weights: Path, **placement: Any) -> dict[str, Any]:
    config = shipped_config("demo.yaml")
    models = {name: {**config["models"][name], "weights": str(weights / name)} for name in MODELS}
    ray = {"address": cluster.address, "token_file": str(cluster.token_file)}
    host = cluster.address.rpartition(":")[0]
    return {
        "models": models,
        "placement": {"ray": ray, **placement},
        "ensembles": {"default": {"panel": list(MODELS), "judge": "conductor", "quorum": 1}},
        "server": {"may_reach": [host]},
    }


@pytest.fixture(scope="module")
def gateway(cluster: RayCluster, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "c.yaml").write_text(yaml.safe_dump(config_of(cluster, weights)))
    with deployed(folder / "c.yaml", folder / "logs", program=QUICK_RESTARTS) as deployment:
        yield deployment


def server_of(weights: Path, model: str) -> int:
    """The process of a model's server, on whatever node."""
    wanted = f" --model {weights / model} "
    found = [int(each.name) for each in Path("/proc").glob("[0-9]*") if wanted in command_of(int(each.name))]
    # Processes that it forks have its command line until they get a name.
    return next(pid for pid in found if "guardian" in command_of(parent_of(pid) or 0))


def core_of(weights: Path, model: str) -> int:
    server = server_of(weights, model)
    pids = [int(each.name) for each in Path("/proc").glob("[0-9]*")]
    return next(pid for pid in pids if parent_of(pid) == server and "EngineCore" in command_of(pid))


def ancestors(pid: int, count: int) -> list[int]:
    """A process and those that started it."""
    out = [pid]
    while len(out) < count and (parent := parent_of(out[-1])):
        out.append(parent)
    return out


def ask(gateway: Deployment) -> Any:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "Please tell me the room of Gonil."}]}
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=300) as reply:
        return json.load(reply)


def engine(gateway: Deployment, name: str) -> Any:
    return gateway.get("/ready")["engines"][name]


def last_in_log(gateway: Deployment, name: str, begins: str) -> str:
    lines = (gateway.log_dir / f"{name}.log").read_text().splitlines()
    return next(line.removeprefix(begins) for line in reversed(lines) if line.startswith(begins))


def node_in_log(gateway: Deployment, name: str) -> str:
    return last_in_log(gateway, name, "cappella: starting on node ").split()[0]


def restarted_after(gateway: Deployment, name: str, pid: int) -> Any:
    """The engine's state after a kill of that process: the panel answers meanwhile, and it is up again."""
    before = engine(gateway, name)["restarts"]
    os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: engine(gateway, name)["state"] != "ready", RESTART_TIMEOUT_S)
    # Another member is there, and the quorum is 1.
    assert ask(gateway)["choices"][0]["message"]["content"]
    assert wait_for(lambda: engine(gateway, name)["state"] == "ready", RESTART_TIMEOUT_S), engine(gateway, name)
    now = engine(gateway, name)
    assert now["restarts"] > before
    return now


def test_a_panel_on_two_nodes_answers_and_nobody_without_the_key_reaches_its_engines(
    gateway: Deployment, weights: Path, cluster: RayCluster
) -> None:
    assert ask(gateway)["choices"][0]["message"]["content"]
    assert {node_in_log(gateway, name) for name in MODELS} == set(cluster.raylets)
    base = last_in_log(gateway, "soprano", "cappella: the server listens at ").removesuffix("/v1")
    assert urlsplit(base).hostname in (FAR_HOST, cluster.address.rpartition(":")[0])
    for path in ("/health", "/metrics", "/v1/models", "/tokenize"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(base + path, timeout=30)
        assert refused.value.code == 401
        refused.value.close()
    environment = Path(f"/proc/{server_of(weights, 'soprano')}/environ").read_bytes()
    assert b"RAY_AUTH" not in environment
    assert b"HF_HUB_OFFLINE=1" in environment


def test_an_engine_core_that_is_killed_is_told_and_started_again(gateway: Deployment, weights: Path) -> None:
    assert restarted_after(gateway, "soprano", core_of(weights, "soprano"))["last_failure"]


def test_an_actor_that_is_killed_takes_its_server_along_and_is_started_again(
    gateway: Deployment, weights: Path
) -> None:
    server, _, _, actor = before = ancestors(server_of(weights, "soprano"), 4)
    assert "ray::" in command_of(actor)
    now = restarted_after(gateway, "soprano", actor)
    assert "Actor" in str(now["last_failure"])
    assert wait_for(lambda: not alive(before), 60), [command_of(pid) for pid in alive(before)]
    assert server_of(weights, "soprano") != server
