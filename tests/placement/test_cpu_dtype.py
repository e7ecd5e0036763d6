"""On a CPU that is slow in 16 bits, `dtype: auto` computes in float32, and the plan counts it."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config
from cappella.engines.vllm import server_args
from cappella.placement import machine, planner
from cappella.placement.footprint import footprint
from cappella.placement.machine import Device, Machine
from cappella.placement.planner import Plan
from support.weights_folder import TINY, write_model

CPU = Machine([Device("memory", 0, 8 << 30, 8 << 30)], gpu=False)
OLD_CPU = replace(CPU, slow_in_16_bits=True)
AVX2 = "processor\t: 0\nflags\t\t: fpu sse avx avx2 fma\n"


def config_of(weights: Path, **model: Any) -> Config:
    models = {"ann": {"weights": str(weights), "max_model_len": 64, "max_num_seqs": 4, **model}}
    return Config.model_validate({"models": models, "ensembles": {"x": {"panel": ["ann"], "judge": "ann"}}})


def plan_of(config: Config, on: Machine) -> Plan:
    return planner.place(config, {"ann": footprint("ann", config.local["ann"], on)}, on)


def dtype_of(config: Config, on: Machine) -> str:
    flags = server_args.arguments("ann", config.local["ann"], plan_of(config, on).placed["ann"], Path("/s"))
    return next(flag.partition("=")[2] or flags[at + 1] for at, flag in enumerate(flags) if flag.startswith("--dtype"))


@pytest.mark.parametrize(
    ("cpuinfo", "is_slow"),
    [(AVX2, True), (AVX2.replace("fma", "fma avx512f"), False), ("Features\t: fp asimd bf16\n", False)],
)
def test_a_cpu_without_avx512_is_slow_in_16_bits(cpuinfo: str, is_slow: bool) -> None:
    assert machine.is_slow_in_16_bits(cpuinfo) is is_slow


def test_auto_is_float32_there_with_twice_the_weights_and_cache(tmp_path: Path) -> None:
    config = config_of(write_model(tmp_path))
    usual, slow = (plan_of(config, each).placed["ann"] for each in (CPU, OLD_CPU))
    assert (dtype_of(config, CPU), dtype_of(config, OLD_CPU)) == ("auto", "float32")
    assert slow.weight_bytes == pytest.approx(2 * usual.weight_bytes, rel=0.01)
    assert slow.kv_cache_bytes / slow.sequences == pytest.approx(2 * usual.kv_cache_bytes / usual.sequences)


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_a_dtype_that_is_named_is_kept(tmp_path: Path, dtype: str) -> None:
    config = config_of(write_model(tmp_path), dtype=dtype)
    assert dtype_of(config, CPU) == dtype_of(config, OLD_CPU) == dtype


def test_quantised_weights_compute_in_what_their_kernels_take(tmp_path: Path) -> None:
    quantised = {**TINY, "quantization_config": {"quant_method": "awq", "bits": 4, "group_size": 32}}
    assert dtype_of(config_of(write_model(tmp_path, quantised)), OLD_CPU) == "auto"


def test_a_reload_keeps_the_kind_of_machine() -> None:
    assert OLD_CPU.limited(1 << 30).slow_in_16_bits
