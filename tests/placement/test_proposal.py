"""A panel that is chosen has different families of like strength, a judge not weaker than any, and it fits."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest

from cappella.placement import proposal
from cappella.placement.machine import Device, Machine
from cappella.placement.planner import Plan
from cappella.placement.proposal import Candidate, Choice

GB = 1_000_000_000
MACHINE = Machine([Device("GPU 0", 0, 80 * GB, 80 * GB)], gpu=True)
PLAN = cast(Plan, "a plan")
LARGE = Candidate("maker-a/qwen3-32b-awq", "maker-a", "qwen3", 32 * GB, 19 * GB, 32768, True, True)
GEMMA = Candidate("maker-b/gemma-3-12b", "maker-b", "gemma3", 12 * GB, 24 * GB, 32768, False, True)
QWEN = Candidate("maker-a/qwen3-8b", "maker-a", "qwen3", 8 * GB, 16 * GB, 32768, True, True)
LLAMA = Candidate("maker-c/llama-8b", "maker-c", "llama", 8 * GB, 16 * GB, 4096, True, True)
SMALL = Candidate("maker-d/smollm3-3b", "maker-d", "smollm3", 3 * GB, 6 * GB, 32768, True, True)


def chosen(*candidates: Candidate, room: Callable[[Choice], bool] = lambda choice: True) -> Any:
    found = proposal.choose(candidates, MACHINE, lambda choice: PLAN if room(choice) else None)
    return found and ([each.weights.partition("/")[2] for each in found.choice.panel], found.choice.judge)


def test_three_families_come_before_a_stronger_member_and_a_stronger_model_judges() -> None:
    assert chosen(LARGE, GEMMA, QWEN, LLAMA, SMALL) == (["gemma-3-12b", "qwen3-8b", "llama-8b"], LARGE)


def test_a_member_judges_where_nothing_stronger_fits() -> None:
    panel, judge = chosen(LARGE, GEMMA, QWEN, LLAMA, room=lambda choice: LARGE not in choice.models)
    assert (panel, judge) == (["gemma-3-12b", "qwen3-8b", "llama-8b"], GEMMA)


def test_a_model_far_weaker_than_the_strongest_is_no_member() -> None:
    assert chosen(GEMMA, SMALL) == (["gemma-3-12b"], GEMMA)


def test_models_of_one_maker_or_one_architecture_are_of_one_family() -> None:
    newer = replace(QWEN, weights="maker-e/qwen2-9b", maker="maker-e", architecture="qwen2", parameters=9 * GB)
    assert chosen(newer, QWEN) == (["qwen2-9b"], newer)
    cousin = replace(QWEN, weights="maker-a/other-9b", architecture="other", parameters=9 * GB)
    assert chosen(cousin, QWEN) == (["other-9b"], cousin)


def test_one_model_gives_several_samples() -> None:
    choice = proposal.of_these([QWEN], None)
    assert (choice.samples, choice.judge) == (3, QWEN)
    assert "3 times" in choice.reason


def test_a_judge_with_room_for_the_answers_comes_before_one_without() -> None:
    short = replace(GEMMA, context_tokens=2048)
    twin = replace(GEMMA, weights="maker-f/other-12b", maker="maker-f", architecture="other")
    assert proposal.of_these([short, twin], None).judge == twin


@pytest.mark.parametrize("room", [lambda choice: False, lambda choice: len(choice.panel) > 5])
def test_nothing_is_proposed_where_nothing_fits(room: Callable[[Choice], bool]) -> None:
    assert chosen(GEMMA, QWEN, room=room) is None


def test_what_is_larger_than_the_machine_is_not_planned() -> None:
    huge = replace(GEMMA, size_bytes=90 * GB)
    assert chosen(
        huge, QWEN, LLAMA, room=lambda choice: huge not in choice.models or pytest.fail("it was planned")
    ) == (
        ["qwen3-8b", "llama-8b"],
        QWEN,
    )
