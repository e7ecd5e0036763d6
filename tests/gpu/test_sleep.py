"""Members that sleep and wake in turn on one real GPU: what a sleeper keeps, how long a swap takes, what leaks."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cappella.config import load
from cappella.placement import advice, machine
from support import gpu_report
from support.gpu_report import GIB, record
from support.on_gpu import ConfigMap, OnGpu, running
from support.real_deployment import stop

pytestmark = pytest.mark.gpu

CYCLES = 10
SLEEPER_BYTES = GIB
"""Room for what each of three sleepers keeps."""


@pytest.fixture(scope="module", params=[False, True], ids=["graphs-kept", "graphs-freed"])
def swapped(
    request: pytest.FixtureRequest,
    write_config: Callable[[str, Callable[[ConfigMap], None]], Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[OnGpu]:
    """Room for the judge and one member; a sleeper keeps its CUDA graphs, or puts them into main memory too."""
    if not machine.own().gpu:
        pytest.skip("Models sleep on a GPU only")
    all_at_once = advice.plan(load.load(write_config("all", lambda config: None)), machine.own())
    largest = max(placed.total_bytes for placed in all_at_once.placed.values())

    def swap(config: ConfigMap) -> None:
        memory_bytes = int(2.2 * largest + 3 * SLEEPER_BYTES)
        config["placement"] = {"swap": True, "memory_bytes": memory_bytes, "sleepers_free_graphs": request.param}

    name = "swap-free-graphs" if request.param else "swap"
    with running(write_config(name, swap), tmp_path_factory.mktemp(name)) as started:
        yield started
        assert stop(started.deployment) == 0


def test_a_panel_in_turns_sleeps_and_wakes_without_a_leak(swapped: OnGpu) -> None:
    used: list[float] = []
    for cycle in range(CYCLES):
        began = time.monotonic()
        run = swapped.ask(fusion={"include_intermediate_responses": True})
        used.append(gpu_report.used_gib() - swapped.used_before_gib)
        record(
            "swap",
            config=swapped.deployment.config.stem,
            cycle=cycle,
            run_s=time.monotonic() - began,
            used_gib=used[-1],
        )
        assert run["fusion"]["status"] == "ok"
        assert len(run["fusion"]["responses"]) == 3
    logs = swapped.deployment.log_dir
    for model in ("ann", "bob", "cat"):
        freed = gpu_report.slept_gib(logs / f"{model}.log")
        record("sleep", model=model, config=swapped.deployment.config.stem, freed_and_in_use_gib=freed)
    states = [engine["state"] for engine in swapped.deployment.get("/ready")["engines"].values()]
    assert "asleep" in states
    # Engines that slept have not been restarted.
    assert not list(logs.glob("*.previous.log"))
    assert used[-1] < used[2] + 0.25
