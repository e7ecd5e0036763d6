"""Faults on real engines under twenty runs at once. Every request ends well, labelled, or with an error of its own.

`CAPPELLA_DRILL=1000` makes that many requests for each fault, and `CAPPELLA_DRILL_OUT` names a file for the figures.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from cappella.cli.client.http import Server
from cappella.cli.client.reload import reload
from support.fault_drill import AT_ONCE, DEADLINE_S, Tally, run_drill
from support.real_deployment import (
    QUICK_RESTARTS,
    ROOT,
    Deployment,
    alive,
    command_of,
    deployed,
    memory_bytes,
    parent_of,
    wait_for,
)

pytestmark = [pytest.mark.vllm, pytest.mark.long]

REQUESTS = int(os.environ.get("CAPPELLA_DRILL", "40"))
HUNG_AFTER_S = 15.0
DISK_BYTES, DISK_FILES = 8 << 20, 400
MEMBERS = ("soprano", "alto", "tenor")

_MAY_MOUNT = subprocess.run(["unshare", "-rm", "true"], check=False, stderr=subprocess.DEVNULL).returncode == 0
figures: dict[str, Any] = {}


@pytest.fixture(scope="module")
def disk() -> Iterator[Path]:
    """A folder that is a small disk of its own for the deployment, where the kernel allows that."""
    # The path of this one leaves room for the names of sockets, as /tmp does.
    with TemporaryDirectory(prefix="disk-") as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, disk: Path) -> Iterator[Deployment]:
    """The demo with deadlines and patience for a test; its weights can be spoilt."""
    folder = tmp_path_factory.mktemp("stack")
    shutil.copytree(ROOT / "model_configs" / "demo", folder / "demo")
    config = yaml.safe_load((ROOT / "model_configs" / "demo.yaml").read_text())
    for model in config["models"].values():
        model["hung_after_s"] = HUNG_AFTER_S
    config["ensembles"]["default"] |= {"deadline_s": DEADLINE_S, "round_timeout_s": DEADLINE_S - 5}
    path = folder / "stack.yaml"
    path.write_text(json.dumps(config))
    mount = f'mount -t tmpfs -o size={DISK_BYTES},nr_inodes={DISK_FILES} tmpfs "{disk}" && exec "$0" "$@"'
    before = ["unshare", "-rm", "sh", "-c", mount] if _MAY_MOUNT else []
    with deployed(path, disk / "logs", before, {**os.environ, "TMPDIR": str(disk)}, QUICK_RESTARTS) as deployment:
        yield deployment
    if out := os.environ.get("CAPPELLA_DRILL_OUT"):
        Path(out).write_text(json.dumps({"at_once": AT_ONCE, "deadline_s": DEADLINE_S, "faults": figures}) + "\n")


def states(stack: Deployment) -> dict[str, str]:
    return {name: engine["state"] for name, engine in stack.get("/ready")["engines"].items()}


def restarts(stack: Deployment, besides: str) -> dict[str, int]:
    return {name: e["restarts"] for name, e in stack.get("/ready")["engines"].items() if name != besides}


def planned_bytes(stack: Deployment) -> int:
    """Of all engines: they grow towards it while more and more of their KV caches is used; it is within 5 %."""
    return sum(sum(engine["planned"].values()) for engine in stack.get("/api/machine")["engines"].values())


def touch_many(folder: Path) -> None:
    for number in range(DISK_FILES):
        (folder / str(number)).touch()


async def start_finished(stack: Deployment, timeout_s: float = 120) -> bool:
    return await asyncio.to_thread(wait_for, lambda: set(states(stack).values()) == {"ready"}, timeout_s)


def lasting(stack: Deployment) -> int:
    """How many processes it has, without those that compile forms: they start with the first form."""
    return sum("form_compiler" not in command_of(pid) for pid in stack.processes())


async def suffer(stack: Deployment, fault: str, victim: str, harm: Any) -> Tally:
    """Run the fault drill; afterwards the deployment must be as before."""
    processes, others = lasting(stack), restarts(stack, victim)
    began = time.monotonic()
    tally = await run_drill(stack.url, REQUESTS, harm)
    figures[fault] = tally.figures()
    assert not tally.bad
    assert sum(tally.ends.values()) == REQUESTS
    assert await start_finished(stack)
    figures[fault]["all_well_after_s"] = round(time.monotonic() - began, 1)
    assert restarts(stack, victim) == others
    assert await asyncio.to_thread(wait_for, lambda: stack.running() == 0, 5)
    assert lasting(stack) == processes
    figures[fault]["memory_bytes"] = memory_bytes(stack.processes())
    assert figures[fault]["memory_bytes"] < 1.05 * planned_bytes(stack)
    return tally


@pytest.mark.parametrize("victim", ["alto", "conductor"])
async def test_a_killed_engine_core_loses_no_run(stack: Deployment, victim: str) -> None:
    async def harm() -> None:
        os.kill(stack.engine_core(victim), signal.SIGKILL)

    tally = await suffer(stack, f"kill -9 of the core of {victim}", victim, harm)
    assert tally.ends["degraded"]


async def test_a_killed_engine_loses_no_run(stack: Deployment) -> None:
    async def harm() -> None:
        os.killpg(os.getpgid(stack.engine_core("tenor")), signal.SIGKILL)

    await suffer(stack, "kill -9 of all processes of tenor", "tenor", harm)


@pytest.mark.parametrize(("victim", "part"), [("conductor", "core"), ("alto", "server")])
async def test_a_stopped_engine_is_seen_to_hang_and_replaced(stack: Deployment, victim: str, part: str) -> None:
    async def harm() -> None:
        core = stack.engine_core(victim)
        os.kill(core if part == "core" else parent_of(core) or 0, signal.SIGSTOP)

    before = stack.get("/ready")["engines"][victim]["restarts"]
    await suffer(stack, f"SIGSTOP of the {part} of {victim}", victim, harm)
    await asyncio.to_thread(wait_for, lambda: stack.get("/ready")["engines"][victim]["restarts"] > before, 60)
    assert await start_finished(stack)
    assert stack.get("/ready")["engines"][victim]["restarts"] == before + 1


@pytest.mark.skipif(not _MAY_MOUNT, reason="this kernel lets nobody mount a disk")
async def test_a_full_disk_stops_no_run(stack: Deployment, disk: Path) -> None:
    filler = Path(f"/proc/{stack.process.pid}/root{disk}/filler")

    async def harm() -> None:
        filler.mkdir()
        with pytest.raises(OSError, match="No space left"):
            (filler / "bytes").write_bytes(bytes(2 * DISK_BYTES))
        with pytest.raises(OSError, match="No space left"):
            touch_many(filler)
        os.kill(stack.engine_core("alto"), signal.SIGKILL)

    async def relief() -> None:
        # Before its tries are used up, if it did not find room by what its end gave back.
        assert await asyncio.to_thread(wait_for, lambda: states(stack)["alto"] != "ready", 60)
        await asyncio.sleep(3)
        shutil.rmtree(filler)

    relieved = asyncio.create_task(relief())
    await suffer(stack, "a full disk, and kill -9 of the core of alto", "alto", harm)
    await relieved


async def test_weights_that_are_spoilt_cost_one_member_and_come_back_with_a_reload(stack: Deployment) -> None:
    weights = stack.config.parent / "demo" / "tenor" / "model.safetensors"
    whole = weights.read_bytes()

    async def harm() -> None:
        weights.write_bytes(whole[: len(whole) // 2])
        os.kill(stack.engine_core("tenor"), signal.SIGKILL)

    async def mend() -> None:
        assert await asyncio.to_thread(wait_for, lambda: states(stack)["tenor"] == "failed", 180)
        assert "tries" in stack.get("/ready")["engines"]["tenor"]["stage"]
        weights.write_bytes(whole)
        await reload(Server(stack.url, None))

    mended = asyncio.create_task(mend())
    processes = lasting(stack)
    tally = await run_drill(stack.url, REQUESTS, harm)
    figures["spoilt weights, and kill -9 of the core of tenor"] = tally.figures()
    assert not tally.bad
    await mended
    assert await start_finished(stack)
    assert lasting(stack) == processes


def test_kill_9_of_the_gateway_leaves_nothing(stack: Deployment) -> None:
    processes = stack.processes()
    assert len(processes) > 12
    os.kill(stack.process.pid, signal.SIGKILL)
    stack.process.wait()
    began = time.monotonic()
    assert wait_for(lambda: not alive(processes), 20)
    figures["kill -9 of the gateway"] = {"nothing_left_after_s": round(time.monotonic() - began, 1)}
