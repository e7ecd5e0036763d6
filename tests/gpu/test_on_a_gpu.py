"""Engines side by side on one real GPU, as planned: memory, streams, aborts, deaths, sleep.

`scripts/test_gpu` runs this. CAPPELLA_GPU_SHAPE chooses the shape that scripts/make_shape writes: `1b` unless it is
set; `8b` is for a GPU of 80 GB.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from urllib.request import Request, urlopen

import pytest
import yaml

from cappella.config import load
from cappella.placement import advice, gpus, machine
from cappella.placement.planner import Plan
from support.real_deployment import ROOT, Deployment, deployed, stop, wait_for

pytestmark = pytest.mark.gpu

SHAPE = os.environ.get("CAPPELLA_GPU_SHAPE", "1b")
MIB = 1 << 20


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The config of three members and a judge of one real shape, with random weights."""
    folder = tmp_path_factory.mktemp("shapes")
    subprocess.run([sys.executable, str(ROOT / "scripts" / "make_shape"), SHAPE, str(folder)], check=True)
    return folder / f"{SHAPE}.yaml"


@pytest.fixture(scope="module")
def plan(shape: Path) -> Plan:
    """Made before anything runs, as `serve` does."""
    return advice.plan(load.load(shape), machine.own())


@pytest.fixture(scope="module")
def side_by_side(shape: Path, plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, int]]:
    """The deployment, and the bytes that were free on its GPU before."""
    free_bytes = gpus.free_bytes([0])
    with deployed(shape, tmp_path_factory.mktemp("logs")) as deployment:
        yield deployment, free_bytes
        assert stop(deployment) == 0


def ask(deployment: Deployment, stream: bool = False, **fields: object) -> HTTPResponse:
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": "the room and the price"}]}
    data = json.dumps({**body, "stream": stream, **fields}).encode()
    request = Request(f"{deployment.url}/v1/chat/completions", data, {"Content-Type": "application/json"})
    reply: HTTPResponse = urlopen(request, timeout=300)
    return reply


def test_engines_take_what_was_planned(side_by_side: tuple[Deployment, int], plan: Plan) -> None:
    deployment, free_before = side_by_side
    for _ in range(8):
        ask(deployment).read()
    used = free_before - gpus.free_bytes([0])
    planned = sum(each.total_bytes for each in plan.placed.values() if 0 in each.gpus)
    print(f"planned {planned / MIB:.0f} MiB, used {used / MIB:.0f} MiB, ratio {used / planned:.3f}")
    assert 0.95 * planned <= used <= 1.05 * planned


def test_a_run_streams(side_by_side: tuple[Deployment, int]) -> None:
    lines = [line for line in ask(side_by_side[0], stream=True) if line.startswith(b"data: ")]
    assert lines[-1].strip() == b"data: [DONE]"
    assert len(lines) > 10


def test_a_client_that_leaves_frees_the_engines(side_by_side: tuple[Deployment, int]) -> None:
    deployment, _ = side_by_side
    reply = ask(deployment, stream=True, max_completion_tokens=2000)
    reply.read(100)
    reply.close()
    assert wait_for(lambda: deployment.running() == 0, 2)


def test_a_killed_engine_gives_its_memory_back_and_returns(side_by_side: tuple[Deployment, int], plan: Plan) -> None:
    deployment, _ = side_by_side
    free_bytes = gpus.free_bytes([0])
    victim = next(pid for pid in deployment.processes() if b"--served-model-name\0ann\0" in _command(pid))
    os.kill(victim, 9)
    assert wait_for(lambda: gpus.free_bytes([0]) > free_bytes + plan.placed["ann"].weight_bytes, 30)
    assert wait_for(lambda: deployment.get("/ready")["engines"]["ann"]["state"] == "ready", 300)
    assert json.load(ask(deployment))["fusion"]["status"] == "ok"


def _command(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_a_panel_in_turns_sleeps_and_wakes(shape: Path, plan: Plan, tmp_path: Path) -> None:
    config = yaml.safe_load(shape.read_text())
    for model in config["models"].values():
        model["weights"] = str(shape.parent / model["weights"])
    # Room for the judge and one member, and for what three sleepers keep.
    largest = max(each.total_bytes for each in plan.placed.values())
    config["placement"] = {"swap": True, "memory_bytes": int(2.2 * largest + 4 * 700 * MIB)}
    path = tmp_path / "swap.yaml"
    path.write_text(yaml.safe_dump(config))
    with deployed(path, tmp_path / "logs") as deployment:
        for _ in range(3):
            run = json.load(ask(deployment, fusion={"include_intermediate_responses": True}))
            assert run["fusion"]["status"] == "ok"
            assert len(run["fusion"]["responses"]) == 3
        states = [engine["state"] for engine in deployment.get("/ready")["engines"].values()]
        assert "asleep" in states
        # Who slept has not been started anew.
        assert not list(deployment.log_dir.glob("*.previous.log"))
