"""A real server over open weights: two small models, for tests of clients on any machine."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from support.real_deployment import ROOT, deployed

SERVER = Path(__file__).with_name("noting_serve.py")
NAMES = {"smollm2": "SmolLM2-135M-Instruct", "qwen-coder": "Qwen2.5-Coder-0.5B-Instruct"}
"""The folders of weights, by what is in them."""


def config(weights: Path) -> dict[str, Any]:
    """Both models as the panel of an ensemble with tools, and the larger one as its judge; answers are short."""
    common = {"tool_parser": "hermes", "enforce_eager": True, "hung_after_s": 900, "cpu_threads": 1}
    common["engine_args"] = {"max_num_batched_tokens": 512}
    small = {**common, "weights": str(weights / "smollm2"), "max_model_len": 4096, "kv_cache_bytes": "256MiB"}
    large = {**common, "weights": str(weights / "qwen-coder"), "max_model_len": 32768, "kv_cache_bytes": "1GiB"}
    ensemble = {
        "panel": [
            {"model": "smollm2", "max_completion_tokens": 32},
            {"model": "qwen-coder", "max_completion_tokens": 48},
        ],
        "judge": {"model": "qwen-coder", "max_completion_tokens": 96},
        # What a small model cannot read, an agent's prompt, is left to the larger one.
        "quorum": 1,
        "analysis": "off",
        "tools": True,
        "round_timeout_s": 900,
        "deadline_s": 1200,
    }
    return {"models": {"smollm2": small, "qwen-coder": large}, "ensembles": {"default": ensemble}}


@contextmanager
def real_gateway(weights: Path, folder: Path, notes: Path) -> Iterator[str]:
    """The address of `cappella serve` over the weights, once its engines are ready; its requests are noted in a file."""
    path = folder / "clients.yaml"
    path.write_text(json.dumps(config(weights)))
    code = os.pathsep.join(str(ROOT / each) for each in ("runtime", "scripts", "tests"))
    environment = {**os.environ, "PYTHONPATH": code, "CLIENT_NOTES": str(notes)}
    with deployed(path, folder / "logs", environment=environment, program=(str(SERVER),)) as deployment:
        yield deployment.url
