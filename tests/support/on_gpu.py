"""A deployment of a real shape with random weights on one GPU, with its plan."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cappella.config import load
from cappella.placement import advice, gpus, machine
from cappella.placement.planner import Plan
from support import gpu_report
from support.real_deployment import START_TIMEOUT_S, Deployment, command_of, deploying, is_ready, wait_for

MODELS = ("ann", "bob", "cat", "judge")
ConfigMap = dict[str, Any]
"""A config as YAML reads it."""


@dataclass(frozen=True)
class OnGpu:
    """A running deployment, its plan, and the memory that was in use before it started."""

    deployment: Deployment
    plan: Plan
    used_before_gib: float

    def ask(self, model: str = "cappella/default", stream: bool = False, timeout_s: float = 300, **fields: Any) -> Any:
        """The reply of a chat request, open as a stream or read as JSON. Raises HTTPError."""
        body = {"model": model, "messages": [{"role": "user", "content": "the room and the price"}], "stream": stream}
        data = json.dumps({**body, **fields}).encode()
        url = f"{self.deployment.url}/v1/chat/completions"
        try:
            reply = urlopen(Request(url, data, {"Content-Type": "application/json"}), timeout=timeout_s)
        except HTTPError as error:
            error.add_note(error.read(2000).decode())
            raise
        return reply if stream else json.load(reply)


@contextmanager
def running(config: Path, log_dir: Path) -> Iterator[OnGpu]:
    """Serve a config; the plan is made before anything runs. Fails at an engine's first failure to start."""
    own = machine.own()
    used = gpu_report.used_gib() if own.gpu else 0.0
    plan = advice.plan(load.load(config), own)
    began = time.monotonic()
    try:
        with deploying(config, log_dir) as deployment:
            with gpu_report.stacks_kept(config.stem, lambda: _engine_cores(deployment)):
                assert wait_for(lambda: _failures(deployment) != [] or is_ready(deployment), START_TIMEOUT_S)
            assert _failures(deployment) == []
            gpu_report.record("start", config=config.stem, took_s=time.monotonic() - began)
            yield OnGpu(deployment, plan, used)
    finally:
        gpu_report.keep_logs(config.stem, log_dir)


def _engine_cores(deployment: Deployment) -> list[int]:
    return [pid for pid in deployment.processes() if "EngineCore" in command_of(pid)]


def _failures(deployment: Deployment) -> list[object]:
    if deployment.process.poll() is not None:
        return [deployment.process.returncode]
    engines = deployment.get("/ready")["engines"].values()
    return [engine["last_failure"] for engine in engines if engine.get("last_failure")]


def free_gib() -> float:
    return gpus.free_bytes([0]) / gpu_report.GIB


def record_memory(engines: OnGpu, on_gpu: bool) -> tuple[float, float]:
    """Record each engine's memory as planned, as taken and as its log says; returns the GPU's planned and used GiB."""
    by_process = gpus.used_bytes() if on_gpu else {}
    for model, placed in engines.plan.placed.items():
        planned = {"weights": placed.weight_bytes, "overhead": placed.overhead_bytes, "kv_cache": placed.kv_cache_bytes}
        gpu_report.record(
            "memory",
            model=model,
            planned_gib={name: round(size / gpu_report.GIB, 3) for name, size in planned.items()},
            taken_gib=by_process.get(engines.deployment.engine_core(model), 0) / gpu_report.GIB,
            logged=gpu_report.logged(engines.deployment.log_dir / f"{model}.log"),
        )
    planned_gib = sum(placed.total_bytes for placed in engines.plan.placed.values()) / gpu_report.GIB
    used_gib = gpu_report.used_gib() - engines.used_before_gib if on_gpu else 0.0
    gpu_report.record("memory of all", planned_gib=planned_gib, used_gib=used_gib)
    return planned_gib, used_gib
