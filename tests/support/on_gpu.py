"""A deployment of a real shape with random weights on one GPU, with its plan."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from cappella.config import load
from cappella.engines import memory_use
from cappella.placement import advice, gpus, machine
from cappella.placement.planner import Plan
from support import gpu_report
from support.real_deployment import START_TIMEOUT_S, Deployment, command_of, deploying, is_ready, wait_for

MODELS = ("ann", "bob", "cat", "judge")
SPEED = "CAPPELLA_GPU_SPEED" in os.environ
"""Whether the benchmarks run too: they take minutes."""
RUNS = {1: 4, 8: 16, 32: 64, 128: 128}
"""Runs of each system in a benchmark, by the number in flight."""
LOADS = [int(load) for load in os.environ.get("CAPPELLA_GPU_LOADS", "1,8,32,128").split(",")]
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
        reply = self._post("/v1/chat/completions", {**body, **fields}, timeout_s)
        return reply if stream else json.load(reply)

    def complete(self, model: str, prompts: list[str], timeout_s: float = 300, **fields: Any) -> Any:
        """The reply to several prompts of a member at once. Raises HTTPError."""
        return json.load(self._post("/v1/completions", {"model": model, "prompt": prompts, **fields}, timeout_s))

    def fullest_step_over(self, model: str) -> float:
        """The largest bound of vLLM's histogram that the tokens of some step exceeded; 0 if it does not tell."""
        return gpu_report.fullest_over(self.deployment.text("/metrics"), model)

    def _post(self, path: str, body: dict[str, Any], timeout_s: float) -> Any:
        data = json.dumps(body).encode()
        request = Request(self.deployment.url + path, data, {"Content-Type": "application/json"})
        try:
            return urlopen(request, timeout=timeout_s)
        except HTTPError as error:
            error.add_note(error.read(2000).decode())
            raise


@contextmanager
def running(config: Path, log_dir: Path) -> Iterator[OnGpu]:
    """Serve a config; the plan is made before anything runs. Fails at an engine's first failure to start."""
    own = machine.own()
    used = gpu_report.used_gib() if own.gpu else 0.0
    plan = advice.plan(load.load(config), own)
    _record_estimate(config)
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


def bench(started: OnGpu, out: Path, *options: str) -> None:
    """Each load is a benchmark of its own, whose figures are recorded as soon as it ends."""
    config = started.deployment.config
    for load_ in LOADS:
        sizes = ["--concurrency", str(load_), "--runs", str(RUNS[load_]), "--rounds", "1", "--answer-tokens", "128"]
        command = [sys.executable, "-m", "cappella", "bench", str(config), "--url", started.deployment.url, *sizes]
        done = subprocess.run([*command, "--out", str(out), *options], check=False, capture_output=True, text=True)
        print(done.stdout, done.stderr[-3000:], sep="\n", flush=True)
        assert done.returncode == 0
        for figures in json.loads((out / "bench.json").read_text())["figures"]:
            gpu_report.record("bench", config=config.stem, **figures)


def _record_estimate(config: Path) -> None:
    """What the plan promises while nothing runs yet: tokens/s of each model, runs at once, seconds of a run."""
    command = [sys.executable, "-m", "cappella", "plan", str(config), "--json"]
    plan = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    tokens_per_s = {each["model"]: each["estimated_tokens_per_s"] for each in plan["models"]}
    gpu_report.record("estimate", config=config.stem, tokens_per_s=tokens_per_s, ensembles=plan["ensembles"])


def _engine_cores(deployment: Deployment) -> list[int]:
    return [pid for pid in deployment.processes() if "EngineCore" in command_of(pid)]


def _failures(deployment: Deployment) -> list[object]:
    if deployment.process.poll() is not None:
        return [deployment.process.returncode]
    engines = deployment.get("/ready")["engines"].values()
    return [engine["last_failure"] for engine in engines if engine.get("last_failure")]


def free_gib() -> float:
    return gpus.free_bytes([0]) / gpu_report.GIB


def taken_bytes(core: int, on_gpu: bool) -> int:
    """The GPU memory of an engine's core; on a CPU the memory (PSS) of all processes of its engine."""
    if on_gpu:
        return gpus.used_bytes().get(core, 0)
    return memory_use.used_bytes({"": os.getpgid(core)}, on_gpus=False).get("", 0)


def record_memory(engines: OnGpu, on_gpu: bool) -> tuple[float, float]:
    """Record each engine's memory as planned, as taken and as its log says; returns the GPU's planned and used GiB."""
    for model, placed in engines.plan.placed.items():
        planned = {"weights": placed.weight_bytes, "overhead": placed.overhead_bytes, "kv_cache": placed.kv_cache_bytes}
        gpu_report.record(
            "memory",
            model=model,
            planned_gib={name: round(size / gpu_report.GIB, 3) for name, size in planned.items()},
            taken_gib=taken_bytes(engines.deployment.engine_core(model), on_gpu) / gpu_report.GIB,
            logged=gpu_report.logged(engines.deployment.log_dir / f"{model}.log"),
        )
    planned_gib = sum(placed.total_bytes for placed in engines.plan.placed.values()) / gpu_report.GIB
    used_gib = gpu_report.used_gib() - engines.used_before_gib if on_gpu else 0.0
    gpu_report.record("memory of all", planned_gib=planned_gib, used_gib=used_gib)
    return planned_gib, used_gib
