"""A node of a cluster refuses a start that would not be the one which the gateway means. It needs no Ray for that."""

import asyncio
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import uvloop

from cappella.engines import backends
from cappella.engines.process.process import EngineProcess
from cappella.engines.ray import digests
from cappella.engines.ray.node import NodeEngine, Part
from cappella.engines.ray.order import Order
from cappella.version import __version__

# In a process of its own, since a guard stays for good.
START = """
import asyncio, json, sys
from cappella.engines.ray.node import NodeEngine, NodeError
from cappella.engines.ray.order import Order

async def main():
    engine = NodeEngine()
    try:
        await engine.start(Order(**json.loads(sys.argv[1])), "127.0.0.1", [])
    except NodeError as error:
        print(error)
    print(engine._folder.exists())

asyncio.run(main())
"""


@pytest.fixture
def order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Order:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "w").mkdir()
    (tmp_path / "w" / "model.safetensors").write_bytes(b"weights")
    folder = tmp_path / "w"
    return Order(
        version=__version__,
        model="ann",
        arguments=[],
        key="secret",
        folders=[str(folder)],
        digests=digests.of([folder]),
        eager=True,
        threads=1,
        engines=1,
        total_bytes=1,
        may_reach=[],
    )


def refusal(order: Order, mode: str = "token") -> str:
    """What the node says instead of a start; its folder is gone then."""
    done = subprocess.run(
        [sys.executable, "-c", START, json.dumps(asdict(order))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "RAY_AUTH_MODE": mode, "PYTHONPATH": str(Path(__file__).parents[2] / "runtime")},
    )
    said, exists = done.stdout.splitlines()
    assert exists == "False"
    return said


def test_weights_of_another_content_are_refused_by_the_name_of_the_file(order: Order, tmp_path: Path) -> None:
    (tmp_path / "w" / "model.safetensors").write_bytes(b"damaged")
    assert "model.safetensors has other content" in refusal(order)


def test_weights_that_are_not_there_are_refused(order: Order, tmp_path: Path) -> None:
    (tmp_path / "w" / "model.safetensors").unlink()
    assert "model.safetensors is missing" in refusal(order)


def test_another_cappella_is_refused(order: Order) -> None:
    assert __version__ in refusal(replace(order, version="0.0.1"))


def test_a_node_where_ray_asks_nobody_for_a_token_is_refused(order: Order) -> None:
    assert "RAY_AUTH_MODE=token" in refusal(order, mode="")


async def told_of_its_end(folder: Path) -> tuple[Part, int | None, str]:
    """What a node tells of a server that was killed, as its guardian reports it: the last part, the code and the reason."""
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    log = folder / "engine.log"
    log.write_text("torch.OutOfMemoryError: CUDA out of memory.\n")
    server = EngineProcess(reader, writer, backends.STARTUP_STAGES, log, log)
    engine = NodeEngine()
    engine._process, engine._log = server, log.open("rb+")
    with theirs:
        theirs.sendall(b"7\n-6")
    part = await engine.follow()
    while not part.ended:
        part = await engine.follow()
    return part, await engine.stop(), await server.exit_reason()


def test_a_server_that_ended_is_told_with_its_code_also_in_the_event_loop_of_rays_actors(tmp_path: Path) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        part, code, reason = runner.run(told_of_its_end(tmp_path))
    assert (part.exit_code, code) == (-6, -6)
    assert "SIGABRT" in reason
