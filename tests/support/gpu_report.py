"""Figures of a test run on a GPU: read from engines' logs and NVIDIA's driver, and written as JSON lines as they come."""

import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cappella.placement import gpus

GIB = 1 << 30
SHAPE = os.environ.get("CAPPELLA_GPU_SHAPE", "1b")
RESULTS = os.environ.get("CAPPELLA_GPU_RESULTS")
"""The file that receives a JSON line for each part; without it they are only printed."""
STACKS = os.environ.get("CAPPELLA_GPU_STACKS")
"""py-spy: with it, what each engine core does is written down every two seconds of a start."""
STACKS_INTERVAL_S = 2.0
_START = time.monotonic()
_LOGGED: Mapping[str, str] = {
    "free_at_start_gib": r"Initial free memory (\S+)",
    "weights_gib": r"Model loading took (\S+)",
    "graphs_gib": r"Graph capturing finished in \S+ secs, took (\S+)",
    "graphs_s": r"Graph capturing finished in (\S+) secs",
    "load_s": r"Model loading took \S+ GiB memory and (\S+)",
    "compile_s": r"torch.compile took (\S+)",
    "kv_tokens": r"GPU KV cache size: ([\d,]+)",
}


def record(part: str, **figures: Any) -> None:
    """Write at once, so that a run that is cut off leaves what it had."""
    line = json.dumps({"part": part, "shape": SHAPE, "at_s": round(time.monotonic() - _START, 1), **figures})
    print(line, flush=True)
    if RESULTS:
        with Path(RESULTS).open("a") as sink:
            sink.write(line + "\n")


def logged(log: Path) -> dict[str, float]:
    """The figures of vLLM's log, those that it has."""
    text = log.read_text(errors="replace")
    found = {name: re.findall(pattern, text) for name, pattern in _LOGGED.items()}
    return {name: float(values[-1].rstrip(",.").replace(",", "")) for name, values in found.items() if values}


def fullest_over(metrics: str, model: str) -> float:
    """The largest bound that the tokens of one of the model's steps exceeded, by vLLM's histogram; 0 if it does not tell."""
    series = re.findall(r"^vllm:iteration_tokens_total_bucket\{([^}]*)\} (\S+)$", metrics, re.MULTILINE)
    own = [(re.findall(r'le="([^"]+)"', labels), float(count)) for labels, count in series if f'="{model}"' in labels]
    steps = max((count for _, count in own), default=0.0)
    return max((float(bound) for (bound,), count in own if count < steps), default=0.0)


def slept_gib(log: Path) -> list[tuple[float, float]]:
    """What each sleep freed, and what was in use on the whole GPU afterwards."""
    pattern = r"Sleep mode freed (\S+) GiB memory, (\S+) GiB"
    return [(float(freed), float(kept)) for freed, kept in re.findall(pattern, log.read_text(errors="replace"))]


def used_gib() -> float:
    """Memory in use on the first GPU, as its driver counts it."""
    gpu = gpus.read()[0]
    return (gpu.total_bytes - gpu.free_bytes) / GIB


def keep_logs(name: str, log_dir: Path) -> None:
    """Put the logs of a deployment into one file beside the results."""
    if not RESULTS:
        return
    with Path(RESULTS).with_name(f"{name}.log").open("w") as sink:
        for log in sorted(log_dir.glob("*.log")):
            sink.write(f"--- {log.name}\n{log.read_text(errors='replace')}\n")


@contextmanager
def stacks_kept(name: str, cores: Callable[[], Sequence[int]]) -> Iterator[None]:
    """Meanwhile, write the stacks of the engine cores that run into a file beside the results."""
    if not (STACKS and RESULTS):
        yield
        return
    done = threading.Event()

    def sample() -> None:
        with Path(RESULTS).with_name(f"{name}.stacks").open("wb") as sink:
            while not done.wait(STACKS_INTERVAL_S):
                for pid in cores():
                    sink.write(f"--- {time.monotonic() - _START:.0f} s\n".encode())
                    sink.flush()
                    subprocess.run([str(STACKS), "dump", "--pid", str(pid)], stdout=sink, stderr=sink, check=False)

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
