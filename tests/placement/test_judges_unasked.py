"""Ensembles whose runs ask no judge: neither check nor plan makes room for one."""

import json
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, load
from cappella.placement import checks, reading_room
from support.weights_folder import TINY, write_model

BY_AGREEMENT: dict[str, Any] = {"strategy": "select", "select": {"by": ["agreement", "weights"]}}
BOTH = [{"model": name, "max_completion_tokens": 1024} for name in ("ann", "bob")]


def config(home: Path, **ensemble: Any) -> Config:
    write_model(home / "w", {**TINY, "max_position_embeddings": 8192})
    models = {"ann": {"weights": "w", "max_model_len": 2048}, "bob": {"weights": "w", "max_model_len": 8192}}
    (home / "c.yaml").write_text(json.dumps({"models": models, "ensembles": {"default": {"panel": BOTH, **ensemble}}}))
    return load.load(home / "c.yaml")


@pytest.mark.parametrize("judge", [{}, {"judge": "ann"}])
def test_check_asks_no_room_to_read_of_a_judge_that_reads_nothing(tmp_path: Path, judge: Any) -> None:
    unasked = config(tmp_path, **BY_AGREEMENT, **judge)
    assert checks.mistakes(unasked, None) == []
    assert list(reading_room.warnings(unasked, {"ann": 2048, "bob": 8192})) == []


@pytest.mark.parametrize(
    "asking",
    [
        {"strategy": "vote"},
        {**BY_AGREEMENT, "agreement": {"by": "judge"}},
        {**BY_AGREEMENT, "presets": {"best": {"select": {"by": ["judge"]}, "judge": "ann"}}},
        {**BY_AGREEMENT, "gate": {"mode": "off", "model": "bob"}, "presets": {"quick": {"gate": "judge"}}},
    ],
)
def test_check_tells_of_each_part_whose_judge_reads_the_answers(tmp_path: Path, asking: dict[str, Any]) -> None:
    (found,) = checks.mistakes(config(tmp_path, **asking), None)
    preset = "".join(f"presets.{name}." for name in asking.get("presets", ()))
    assert found.place == f"ensembles.default.{preset}judge"
    assert "the context of ann is 2048 tokens" in found.problem
