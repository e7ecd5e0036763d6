"""A model without `max_model_len` gets the largest context that there is room for, at most its own."""

from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config
from cappella.errors import ConfigError
from cappella.placement import advice, machine, own_context
from cappella.placement.planner import Plan
from support.weights_folder import TINY, write_model

LLAMA_8B = {**TINY, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32,
            "num_key_value_heads": 8, "vocab_size": 128256, "max_position_embeddings": 131072}  # fmt: skip


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("shapes")
    short = {**LLAMA_8B, "max_position_embeddings": 4096}
    return {"long": write_model(root / "long", LLAMA_8B), "short": write_model(root / "short", short)}


def planned(weights: dict[str, Path], gpus: str, names: str, **fields: Any) -> Plan:
    """The plan of models of these shapes, `long` and `short`; the first has the fields and is the judge."""
    models: dict[str, Any] = {f"m{n}": {"weights": str(weights[shape])} for n, shape in enumerate(names.split())}
    models["m0"] |= fields
    ensembles = {"default": {"panel": list(models), "judge": "m0"}}
    return advice.plan(Config.model_validate({"models": models, "ensembles": ensembles}), machine.described(gpus))


def lengths(plan: Plan) -> list[int]:
    return [each.max_model_len for each in plan.placed.values()]


def test_with_enough_memory_each_model_has_its_own_context(weights: dict[str, Path]) -> None:
    assert lengths(planned(weights, "4x80GiB", "long short")) == [131072, 4096]


def test_models_that_share_a_gpu_share_what_there_is(weights: dict[str, Path]) -> None:
    plan = planned(weights, "80GiB", "long long long")
    assert 8192 < min(lengths(plan)) <= max(lengths(plan)) <= min(lengths(plan)) + 2048
    assert all(tokens % 1024 == 0 for tokens in lengths(plan))
    assert all(each.sequences >= 2 for each in plan.placed.values())
    assert sum(each.total_bytes for each in plan.placed.values()) <= 80 << 30


def test_what_one_cannot_use_or_has_alone_goes_to_those_that_can(weights: dict[str, Path]) -> None:
    crowded = lengths(planned(weights, "80GiB", "long long long"))
    assert min(lengths(planned(weights, "80GiB", "long long short"))[:2]) > max(crowded)
    alone, *others = sorted(lengths(planned(weights, "2x40GiB", "long long long")), reverse=True)
    assert alone > 2 * max(others)


def test_a_context_in_the_config_stays_and_the_others_have_the_rest(weights: dict[str, Path]) -> None:
    plan = planned(weights, "48GiB", "long long", max_model_len=8192)
    assert lengths(plan)[0] == 8192
    assert lengths(plan)[1] > 16384


def test_a_configured_cache_bounds_the_context(weights: dict[str, Path]) -> None:
    plan = planned(weights, "80GiB", "long", kv_cache_bytes="2GiB")
    assert 7168 <= lengths(plan)[0] <= 8192


def test_no_longer_context_is_the_reason_for_a_split(weights: dict[str, Path]) -> None:
    (placed,) = planned(weights, "2x24GiB", "long").placed.values()
    assert (len(placed.gpus), placed.max_model_len < 131072) == (1, True)


def test_a_context_beyond_the_models_own_is_refused_before_the_start(weights: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match=r"models\.m0\.max_model_len: 8192 is more than the model's own .* 4096"):
        planned(weights, "80GiB", "short", max_model_len=8192)
    overrides = {"hf_overrides": {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}}
    assert lengths(planned(weights, "80GiB", "short", max_model_len=8192, engine_args=overrides)) == [8192]


@pytest.mark.parametrize(
    ("config", "default", "most"),
    [
        ({"max_position_embeddings": 4096}, 4096, 4096),
        ({}, 2048, 2048),
        ({"max_position_embeddings": 4096, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384, 16384),
        ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, 131072, 131072),
        (
            {
                "max_position_embeddings": 131072,
                "original_max_position_embeddings": 4096,
                "rope_parameters": {"rope_type": "longrope", "short_factor": [1.0]},
            },
            4096,
            131072,
        ),
        ({"text_config": {"max_position_embeddings": 8192}}, 8192, 8192),
        ({"max_position_embeddings": 4096, "model_max_length": "1k", "rope_scaling": {"factor": "x"}}, 4096, 4096),
    ],
)
def test_a_models_own_context_is_what_vllm_reads(config: dict[str, Any], default: int, most: int) -> None:
    found = own_context.of(config)
    assert (found.default_tokens, found.max_tokens) == (default, most)
