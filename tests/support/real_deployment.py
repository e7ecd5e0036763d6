"""A `cappella serve` process on real vLLM."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 400.0
PROGRAM = ("-m", "cappella")
QUICK_RESTARTS = (str(ROOT / "tests" / "support" / "quick_restarts.py"),)
"""The same with shorter pauses between the tries of an engine that does not start."""


@dataclass(frozen=True)
class Deployment:
    """A `cappella serve` process started by this test session."""

    url: str
    process: "subprocess.Popen[bytes]"
    log_dir: Path
    config: Path

    def get(self, path: str) -> Any:
        try:
            with urllib.request.urlopen(self.url + path, timeout=30) as reply:
                return json.load(reply)
        except urllib.error.HTTPError as error:
            return json.load(error)

    def text(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as reply:
            return str(reply.read().decode())

    def processes(self) -> list[int]:
        """The living descendants of the gateway, including processes inside engines."""
        return _descendants(self.process.pid)

    def engine_core(self, model: str) -> int:
        """The process id of a model's engine core, a child of its server, once there is one."""
        found: list[int] = []

        def is_there() -> bool:
            processes = self.processes()
            # A server that was restarted may still be ending.
            servers = {pid for pid in processes if f"--served-model-name {model} " in command_of(pid)}
            found[:] = [pid for pid in processes if parent_of(pid) in servers and "EngineCore" in command_of(pid)]
            return bool(found)

        assert wait_for(is_there, 120), f"{model} has no engine core"
        return max(found)

    def running(self) -> float:
        """The number of requests that engines are running or queueing."""
        return self._sum(r"vllm:num_requests_(?:running|waiting)\{[^}]*\}")

    def runs_in_flight(self) -> float:
        """The number of runs that the gateway has not ended."""
        return self._sum(r"cappella_runs_in_flight\{[^}]*\}")

    def limits_of_ended_calls(self, model: str) -> float:
        """The sum of the token limits of a model's finished calls; aborted calls add nothing."""
        return self._sum(rf'vllm:request_params_max_tokens_sum\{{[^}}]*model="{model}"[^}}]*\}}')

    def settled_limits_of_ended_calls(self, model: str) -> float:
        """The same, once it stays: the server of a core that was stopped still counts what the core had sent."""
        before, now = -1.0, self.limits_of_ended_calls(model)
        while now != before:
            time.sleep(1.0)
            before, now = now, self.limits_of_ended_calls(model)
        return now

    def kv_usage(self, model: str) -> float:
        """The share of a model's KV cache in use."""
        return self._sum(rf'vllm:kv_cache_usage_perc\{{[^}}]*model="{model}"[^}}]*\}}')

    def _sum(self, sample: str) -> float:
        found = re.findall(rf"^{sample} (\S+)$", self.text("/metrics"), re.MULTILINE)
        assert found, sample
        return sum(map(float, found))


def wait_for(condition: Callable[[], bool], timeout_s: float) -> bool:
    """Poll until the condition holds; False if it never did."""
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()


def alive(pids: list[int]) -> list[int]:
    """The processes that still run, without zombies."""
    return [pid for pid in pids if _state(pid) not in ("", "Z")]


@contextmanager
def stopped(pids: Sequence[int]) -> Iterator[None]:
    """Stop processes with SIGSTOP, and continue them afterwards."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


def shipped_config(name: str) -> Any:
    """A config of model_configs/ with absolute paths, so that it can be written elsewhere."""
    folder = ROOT / "model_configs"
    config = yaml.safe_load((folder / name).read_text())
    for model in config["models"].values():
        model["weights"] = str(folder / model["weights"])
        if "adapters" in model:
            model["adapters"] = {name: str(folder / path) for name, path in model["adapters"].items()}
    return config


@contextmanager
def deployed(
    config: Path,
    log_dir: Path,
    before: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Deployment]:
    """Serve a config as `deploying` does, and wait until it is ready."""
    with deploying(config, log_dir, before, environment, program) as deployment:
        process = deployment.process
        assert wait_for(lambda: process.poll() is not None or is_ready(deployment), START_TIMEOUT_S)
        assert process.poll() is None, (log_dir / "gateway.log").read_text()
        yield deployment


@contextmanager
def deploying(
    config: Path,
    log_dir: Path,
    before: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
    program: Sequence[str] = PROGRAM,
) -> Iterator[Deployment]:
    """Serve a config on a free port, without waiting for the engines; all its processes are ended at the end.

    `before` is a command prefix that must exec the rest, `program` what Python runs.
    """
    command = [
        *before,
        sys.executable,
        *program,
        "serve",
        str(config),
        "--port",
        "0",
        "--log-dir",
        str(log_dir),
    ]
    log_dir.mkdir(parents=True, exist_ok=True)
    output = log_dir / "gateway.log"
    with output.open("wb") as sink, subprocess.Popen(command, stdout=sink, stderr=sink, env=environment) as process:
        try:
            wait_for(lambda: process.poll() is not None or "; starting" in output.read_text(), START_TIMEOUT_S)
            match = re.search(r"http://\S+?:\d+", output.read_text())
            assert match, output.read_text()
            yield Deployment(match[0], process, log_dir, config)
        finally:
            process.terminate()


def is_ready(deployment: Deployment) -> bool:
    """Whether every engine is up, or asleep until its turn."""
    return all(engine["state"] in ("ready", "asleep") for engine in deployment.get("/ready")["engines"].values())


def stop(deployment: Deployment) -> int:
    """SIGTERM; returns the exit code."""
    deployment.process.send_signal(signal.SIGTERM)
    return deployment.process.wait(timeout=600)


def memory_bytes(pids: Iterable[int]) -> int:
    """The memory of processes, counting each shared page once."""
    total = 0
    for pid in pids:
        with suppress(OSError):
            total += int(re.findall(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)[0])
    return total * 1024


def command_of(pid: int) -> str:
    """The command line of a process."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (parent := parent_of(int(entry.name))):
            children.setdefault(parent, []).append(int(entry.name))
    found, todo = [], [pid]
    while todo:
        below = children.get(todo.pop(), [])
        found += below
        todo += below
    return found


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return []


def _state(pid: int) -> str:
    return next(iter(_stat(pid)), "")


def parent_of(pid: int) -> int | None:
    """The parent's process id; None if the process has ended."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None
