"""Plans against vLLM itself: its own reckoning of a KV cache, and engines that run as planned."""

import asyncio
import json
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.config import load
from cappella.placement import advice, architecture, kv_cache, machine
from cappella.placement.architecture import Attention, Latent, Recurrent
from cappella.placement.kv_cache import CacheShape
from support.real_deployment import ROOT, Deployment, deployed

pytestmark = pytest.mark.vllm

DEMO = ROOT / "model_configs" / "demo.yaml"
SIZES = {"hidden_size": 1024, "intermediate_size": 4096, "num_attention_heads": 16, "num_key_value_heads": 4,
         "head_dim": 64, "vocab_size": 1000}  # fmt: skip
SHAPES: Mapping[str, dict[str, Any]] = {
    "full": {"num_hidden_layers": 7},
    "latent": {
        "num_hidden_layers": 7,
        "kv_lora_rank": 512,
        "qk_rope_head_dim": 64,
        "qk_nope_head_dim": 64,
        "v_head_dim": 64,
    },
    "window": {"num_hidden_layers": 7, "sliding_window": 500},
    "one in six full": {"num_hidden_layers": 62, "sliding_window": 1024, "sliding_window_pattern": 6},
    "every other full": {
        "num_hidden_layers": 24,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
    },
    "nearly as many": {
        "num_hidden_layers": 25,
        "sliding_window": 128,
        "layer_types": ["full_attention", *["sliding_attention", "full_attention"] * 12],
    },
}
TOKENS = (1, 1000, 4096, 32768)
STEP_TOKENS = 2048

# What vLLM itself says that one sequence takes, for layers given as JSON.
VLLM = """
import json, sys
from types import SimpleNamespace as NS
import torch
from vllm.v1.core import kv_cache_utils as utils
from vllm.v1.kv_cache_interface import FullAttentionSpec, MLAAttentionSpec, SlidingWindowSpec

def spec(kind, heads, size, span):
    common = dict(block_size=16, num_kv_heads=heads, head_size=size, dtype=torch.bfloat16)
    if kind == "window":
        return SlidingWindowSpec(**common, sliding_window=span)
    return (MLAAttentionSpec if kind == "latent" else FullAttentionSpec)(**common)

layout = NS(is_block_outermost=False)
def one(layers, tokens, step):
    config = NS(
        model_config=NS(max_model_len=tokens), max_in_flight_tokens=step,
        parallel_config=NS(decode_context_parallel_size=1, tensor_parallel_size=1),
        scheduler_config=NS(disable_hybrid_kv_cache_manager=False), speculative_config=None,
        cache_config=NS(get_resolved_kv_cache_layout=lambda: layout, num_gpu_blocks_override=None, enable_prefix_caching=True),
    )
    utils.get_hisparse_kv_cache_groups = lambda *_: None
    utils._annotate_eagle_groups = lambda *_, **__: None
    utils._warn_if_unannotated_eagle_mamba = lambda *_: None
    utils._pool_bytes_per_block = lambda _, groups: (
        max(len(g.layer_names) for g in groups) * groups[0].kv_cache_spec.page_size_bytes
    )
    specs = {str(number): spec(*layer) for number, layer in enumerate(layers)}
    return utils._max_memory_usage_bytes_from_groups(config, utils.get_kv_cache_groups(config, specs))

print(json.dumps([one(*each) for each in json.load(sys.stdin)]))
"""


def test_a_sequence_takes_what_vllm_says_it_takes() -> None:
    cases = [(name, tokens) for name in SHAPES for tokens in TOKENS]
    asked = [(_layers(SHAPES[name]), tokens, kv_cache.STEPS_IN_FLIGHT * STEP_TOKENS) for name, tokens in cases]
    command = [sys.executable, "-c", VLLM]
    done = subprocess.run(command, input=json.dumps(asked), capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    theirs = json.loads(done.stdout.splitlines()[-1])
    shape = CacheShape(value_bytes=2, block_tokens=16, gpus=1, step_tokens=STEP_TOKENS)
    pools = {name: kv_cache.pool(architecture.read({**SIZES, **each}, "c"), shape) for name, each in SHAPES.items()}
    assert {case: pools[case[0]].sequence_bytes(case[1]) for case in cases} == dict(zip(cases, theirs, strict=True))


def _layers(shape: Mapping[str, Any]) -> list[tuple[str, int, int, int | None]]:
    out: list[tuple[str, int, int, int | None]] = []
    for layer, count in architecture.read({**SIZES, **shape}, "c").layers.items():
        match layer:
            case Attention(heads, size, window=int(window)):
                out += [("window", heads, size, window)] * count
            case Attention(heads, size):
                out += [("full", heads, size, None)] * count
            case Latent(size):
                out += [("latent", 1, size, None)] * count
            case Recurrent():
                raise AssertionError("no such layer here")
    return out


def test_engines_hold_as_many_tokens_as_planned(demo: Deployment) -> None:
    config = load.load(DEMO)
    plan = advice.plan(config, machine.own())
    for name, placed in plan.placed.items():
        log = (demo.log_dir / f"{name}.log").read_text()
        found = re.search(r"KV cache size: ([\d,]+) tokens", log)
        assert found, log
        planned = placed.sequences * config.models[name].context_tokens
        # vLLM rounds down to whole blocks, of 128 tokens on a CPU.
        assert planned - 128 < int(found[1].replace(",", "")) <= planned


def test_engines_take_no_more_than_planned_and_not_much_less(demo: Deployment) -> None:
    plan = advice.plan(load.load(DEMO), machine.own())
    used = sum(_pss_bytes(pid) for pid in demo.processes())
    kv_bytes = sum(each.kv_cache_bytes for each in plan.placed.values())
    planned = sum(each.total_bytes for each in plan.placed.values()) + machine_shared_bytes()
    # Memory of the KV cache is taken as blocks are first written.
    assert used <= planned
    # Grammars and buffers come with use: this is what a start takes at least.
    assert used >= 0.5 * (planned - kv_bytes)


def machine_shared_bytes() -> int:
    from cappella.placement.overhead import CPU_SHARED_BYTES

    return CPU_SHARED_BYTES


def _pss_bytes(pid: int) -> int:
    found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


@pytest.mark.long
async def test_a_panel_that_does_not_fit_at_once_takes_turns_and_all_of_it_answers(tmp_path: Path) -> None:
    config = yaml.safe_load(DEMO.read_text())
    for model in config["models"].values():
        model["weights"] = str(DEMO.parent / model["weights"])
    config["placement"] = {"swap": True, "memory_bytes": "2300MiB"}
    path = tmp_path / "swap.yaml"
    path.write_text(yaml.safe_dump(config))
    with deployed(path, tmp_path / "logs") as swapping:
        states = {name: engine["state"] for name, engine in swapping.get("/ready")["engines"].items()}
        assert sorted(states.values()) == ["asleep", "asleep", "ready", "ready"]
        assert states["conductor"] == "ready"
        runs = await asyncio.gather(*(asyncio.to_thread(_ask, swapping, number) for number in range(5)))
        for run in runs:
            assert run["fusion"]["status"] == "ok", run
            assert {each["model"] for each in run["fusion"]["responses"]} == {"soprano", "alto", "tenor"}
        # One process for each turn, not one for each run.
        started = sum(
            (swapping.log_dir / f"{name}{kind}.log").exists() for name in states for kind in ("", ".previous")
        )
        assert started <= len(states) + 1, started
        assert "asleep" in {engine["state"] for engine in swapping.get("/ready")["engines"].values()}


def _ask(deployment: Deployment, number: int) -> Any:
    """A run with what each member said."""
    from urllib.request import Request, urlopen

    question = f"Please tell me the room of Gonil, the price of Tunagox and the lead of Tatim. ({number})"
    fusion = {"analysis": "off", "include_intermediate_responses": True}
    body = {"model": "cappella/default", "messages": [{"role": "user", "content": question}], "fusion": fusion}
    data = json.dumps(body).encode()
    request = Request(f"{deployment.url}/v1/chat/completions", data, {"Content-Type": "application/json"})
    with urlopen(request, timeout=200) as reply:
        return json.load(reply)
