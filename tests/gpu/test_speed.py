"""`cappella bench` at a real shape on one real GPU, beside its memory bandwidth; `scripts/test_gpu --speed` runs it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cappella.placement import machine
from support.gpu_report import record
from support.on_gpu import ConfigMap, record_memory, running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        "CAPPELLA_GPU_SPEED" not in os.environ, reason="takes minutes; scripts/test_gpu --speed runs it"
    ),
]

RUNS = {1: 4, 8: 16, 32: 64, 128: 128}
"""Runs of each system, by the number in flight."""
LOADS = [int(load) for load in os.environ.get("CAPPELLA_GPU_LOADS", "1,8,32,128").split(",")]
BANDWIDTH = """
import json, time, torch
device = "cuda" if torch.cuda.is_available() else "cpu"
source = torch.empty((4 if device == "cuda" else 1) << 28, dtype=torch.float32, device=device).normal_()
target, times = torch.empty_like(source), []
for _ in range(6):
    began = time.monotonic()
    target.copy_(source)
    if device == "cuda":
        torch.cuda.synchronize()
    times.append(time.monotonic() - began)
print(json.dumps({"device": device, "gb_per_s": 2 * source.nbytes / sorted(times)[2] / 1e9}))
"""
"""Bytes read and written by a copy, in the median of six."""


def bench(config: Path, out: Path, *options: str) -> None:
    """One server, and each load a bench of its own, whose figures are recorded as soon as it ends."""
    with running(config, out / "logs") as started:
        for load in LOADS:
            sizes = ["--concurrency", str(load), "--runs", str(RUNS[load]), "--rounds", "1", "--answer-tokens", "128"]
            command = [sys.executable, "-m", "cappella", "bench", str(config), "--url", started.deployment.url, *sizes]
            done = subprocess.run([*command, "--out", str(out), *options], check=False, capture_output=True, text=True)
            print(done.stdout, done.stderr[-3000:], sep="\n", flush=True)
            assert done.returncode == 0
            for figures in json.loads((out / "bench.json").read_text())["figures"]:
                record("bench", config=config.stem, **figures)
        record_memory(started, machine.own().gpu)


def test_memory_bandwidth_is_recorded() -> None:
    # A process of its own: this one would hold the memory on, and the engines would not fit.
    done = subprocess.run([sys.executable, "-c", BANDWIDTH], check=True, capture_output=True, text=True)
    record("bandwidth", **json.loads(done.stdout))


def test_side_by_side(write_config: Callable[[str, Callable[[ConfigMap], None]], Path], tmp_path: Path) -> None:
    config = write_config("plain", lambda config: None)
    bench(config, tmp_path / "plain", "--against", "single,naive")


def test_with_mps(write_config: Callable[[str, Callable[[ConfigMap], None]], Path], tmp_path: Path) -> None:
    def mps(config: ConfigMap) -> None:
        config["placement"] = {"mps": True}

    bench(write_config("mps", mps), tmp_path / "mps", "--against", "naive")
