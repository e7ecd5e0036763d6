"""Parameters of models of which only the bytes of their weights are known."""

from typing import Any

import pytest

from cappella.config import cards
from cappella.placement import parameters

SHAPE = {"vocab_size": 1000, "hidden_size": 100}


@pytest.mark.parametrize(
    ("card", "within"),
    [
        ("qwen3-8b", 0.01),
        ("qwen3-32b-awq", 0.02),
        ("qwen3-14b-awq", 0.02),
        ("qwen3-32b-fp8", 0.02),
        ("gpt-oss-20b", 0.12),
        ("gpt-oss-120b", 0.05),
        ("ministral-3-8b-instruct-2512", 0.07),
    ],
)
def test_they_are_near_those_of_the_shipped_cards(card: str, within: float) -> None:
    known = cards.load(cards.SHIPPED / f"{card}.yaml")
    assert parameters.count(known.config, known.weight_bytes) == pytest.approx(known.parameters, rel=within)


@pytest.mark.parametrize(
    ("config", "weight_bytes", "expected"),
    [
        ({"dtype": "float32"}, 4000, 1000),
        ({"torch_dtype": "float16"}, 4000, 2000),
        ({"quantization_config": {"load_in_8bit": True, "quant_method": "bitsandbytes"}}, 401_000, 201_000),
        ({"quantization_config": {"config_groups": {"a": {"weights": {"num_bits": 8}}}}}, 401_000, 201_000),
        ({"quantization_config": {"quant_method": "fp8"}, "tie_word_embeddings": True}, 201_000, 101_000),
    ],
)
def test_each_way_to_store_weights_has_its_size(config: dict[str, Any], weight_bytes: int, expected: int) -> None:
    assert parameters.count({**SHAPE, **config}, weight_bytes) == expected
