"""Check and plan tell of ensembles whose answers may exceed what their judge can read."""

from typing import Any

import pytest

from cappella.config import Config
from cappella.placement import reading_room


def told(judge_context: int, seats: list[Any], **ensemble: Any) -> list[tuple[str, str]]:
    config = Config.model_validate(
        {
            "models": {name: {"weights": "w"} for name in ("ann", "bob", "big")},
            "ensembles": {"default": {"panel": seats, "judge": "big", **ensemble}},
        }
    )
    return list(reading_room.warnings(config, {"ann": 8192, "bob": 8192, "big": judge_context}))


@pytest.mark.parametrize(
    ("context", "seats", "warns"),
    [
        (32_768, ["ann", "bob"], False),
        (4096, ["ann", "bob"], True),
        (4096, [{"model": "ann", "max_completion_tokens": 200}, {"model": "bob", "max_completion_tokens": 200}], False),
        (16_384, [{"model": "ann", "samples": 8, "temperature": 0.7, "max_completion_tokens": 2000}, "bob"], True),
    ],
)
def test_a_judge_that_may_read_answers_in_part_is_told(context: int, seats: list[Any], warns: bool) -> None:
    assert bool(told(context, seats)) == warns


def test_a_judge_that_only_chooses_has_more_room() -> None:
    assert told(5500, ["ann", "bob"]) != []
    assert told(5500, ["ann", "bob"], strategy="select") == []


def test_a_context_that_the_plan_has_not_chosen_yet_is_not_guessed() -> None:
    config = Config.model_validate(
        {"models": {"ann": {"weights": "w"}}, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}}
    )
    assert list(reading_room.warnings(config, {})) == []
