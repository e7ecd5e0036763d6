"""The plan's overhead against start-ups that were logged: others' on Hopper GPUs, and one of our own."""

import pytest

from cappella.config import cards
from cappella.placement import architecture, overhead
from cappella.placement.architecture import Architecture

CARDS = cards.SHIPPED
GIB = 1 << 30
H100_BYTES = int(79.19 * GIB)


def of_card(name: str) -> Architecture:
    return architecture.read(cards.load(CARDS / f"{name}.yaml").config, name)


# llm-d-planner, accuracy/results/v0.19.0: H100, vLLM 0.19, 8192 tokens and 1024 sequences a step.
@pytest.mark.parametrize(
    ("card", "gpus", "logged_gib"),
    [
        ("llama-3.1-8b-instruct", 1, 1.89),
        ("qwen2.5-7b-instruct", 1, 2.21),
        ("qwen3-8b", 1, 2.21),
        ("qwen3-14b", 1, 2.23),
        ("phi-4", 1, 1.52),
        ("granite-3.3-8b-instruct", 1, 0.85),
        ("qwen2.5-72b-instruct", 2, 2.29),
        ("llama-3.3-70b-instruct", 2, 1.96),
    ],
)
def test_a_step_takes_what_was_logged(card: str, gpus: int, logged_gib: float) -> None:
    planned_gib = overhead.gpu_step_bytes(of_card(card), gpus, 1024, 8192) / GIB
    assert planned_gib == pytest.approx(logged_gib, rel=0.05)


# scripts/bench_results/gpu-h100-1b.jsonl and the logs of the same run: 64 sequences.
@pytest.mark.parametrize(("query_tokens", "logged"), [(1, 19 + 11), (5, 55 + 38)])
def test_as_many_graphs_are_captured_as_were_logged(query_tokens: int, logged: int) -> None:
    assert overhead.captured_graphs(of_card("llama-3.1-8b-instruct"), 64, query_tokens) == pytest.approx(
        logged, rel=0.05
    )


# vLLM's public logs: 2.87 GiB on each of two H100s, 2.83 on each of eight H200s, beside the context.
def test_a_split_on_hopper_takes_what_was_logged() -> None:
    split_gib = (overhead.fixed_bytes(2, H100_BYTES) - overhead.fixed_bytes(1, H100_BYTES)) / GIB
    assert split_gib == pytest.approx(2.87, rel=0.05)
    assert overhead.fixed_bytes(1, H100_BYTES) / GIB == pytest.approx(1.04, rel=0.05)
