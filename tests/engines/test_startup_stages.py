"""The stages of a start, as vLLM's log of a GPU and of a CPU tells them."""

from pathlib import Path

import pytest

from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.startup_log import StartupLog

# Lines of vLLM 0.32's logs, of an H200 and of a CPU.
ON_A_GPU = """
INFO [api_utils.py:286] non-default args: {}
INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/tmp/w/8b'
INFO [model_runner.py:392] Loading model from scratch...
INFO [default_loader.py:501] Loading weights took 2.77 seconds
INFO [monitor.py:40] [backbone] Starting torch.compile
INFO [kv_cache_utils.py:2327] GPU KV cache size: 12,288 tokens
INFO [kernel_warmup.py:176] JIT kernel warmup starting.
INFO [kernel_warmup.py:189] JIT kernel warmup finished in 0.00s.
Capturing CUDA graphs (PIECEWISE):   0%|          | 0/19 [00:00<?, ?it/s]
INFO [core.py:395] init engine (profile, create kv cache, warmup model) took 53.76 s
INFO [entry.py:140] Starting vLLM server on unix:/tmp/engine.sock
"""
ON_A_CPU = """
INFO [api_utils.py:286] non-default args: {}
INFO [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='/tmp/w/8b'
INFO [cpu_model_runner.py:68] Starting to load model /tmp/w/8b...
INFO [default_loader.py:501] Loading weights took 2.77 seconds
INFO [core.py:395] init engine (profile, create kv cache, warmup model) took 5.76 s
INFO [entry.py:140] Starting vLLM server on unix:/tmp/engine.sock
"""
BOTH = ["reading the model's config", "starting the engine core", "loading weights", "making the KV cache"]
ENDS = ["starting the server", "answering a first token"]


@pytest.mark.parametrize(
    ("lines", "stages"),
    [
        (ON_A_GPU, [*BOTH, "compiling the model", "compiling kernels", "capturing CUDA graphs", *ENDS]),
        (ON_A_CPU, [*BOTH, *ENDS]),
    ],
)
def test_each_stage_begins_with_its_line(tmp_path: Path, lines: str, stages: list[str]) -> None:
    log, told = tmp_path / "ann.log", StartupLog(STARTUP_STAGES)
    seen: list[str] = []
    for line in lines.strip().splitlines():
        with log.open("a") as sink:
            sink.write(line + "\n")
        told.read(log)
        if told.stage.name not in seen:
            seen.append(told.stage.name)
    assert seen == stages


def test_progress_grows_with_the_stages() -> None:
    shares = [stage.progress for stage in STARTUP_STAGES.stages]
    assert shares == sorted(set(shares))
