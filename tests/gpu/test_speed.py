"""The memory bandwidth of one real GPU, and `cappella bench` with MPS; `scripts/test_gpu --speed` runs them too."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cappella.placement import machine
from support.gpu_report import record
from support.on_gpu import SPEED, ConfigMap, bench, record_memory, running

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not SPEED, reason="takes minutes; scripts/test_gpu --speed runs it"),
]

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


def test_memory_bandwidth_is_recorded() -> None:
    # A process of its own: this one would hold the memory on, and the engines would not fit.
    done = subprocess.run([sys.executable, "-c", BANDWIDTH], check=True, capture_output=True, text=True)
    record("bandwidth", **json.loads(done.stdout))


def test_with_mps(write_config: Callable[[str, Callable[[ConfigMap], None]], Path], tmp_path: Path) -> None:
    def mps(config: ConfigMap) -> None:
        config["placement"] = {"mps": True}

    with running(write_config("mps", mps), tmp_path / "logs") as started:
        bench(started, tmp_path, "--against", "single,naive")
        record_memory(started, machine.own().gpu)
