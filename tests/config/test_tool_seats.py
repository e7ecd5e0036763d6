"""Configs whose seats and judges have tools."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.config.load import load
from cappella.config.seat_tools import SeatTools
from cappella.errors import ConfigError, Mistakes

MODEL = {"weights": "w", "max_model_len": 100, "kv_cache_bytes": "1MiB"}
ABLE = {**MODEL, "tool_parser": "hermes"}


def written(folder: Path, **changes: Any) -> Path:
    """A config where ann and the judge may call tools, and bob has no parser for that."""
    config = {
        "models": {"ann": ABLE, "bob": MODEL},
        "tools": {"calc": {"builtin": "calculator"}},
        "documents": {"handbook": {"folder": "docs"}},
        "ensembles": {
            "default": {"panel": [{"model": "ann", "tools": ["calc", "handbook"]}, "bob"], "judge": "bob"},
        },
    }
    (folder / "docs").mkdir(exist_ok=True)
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump({**config, **changes}, sort_keys=False))
    return path


def ensemble(**fields: Any) -> dict[str, Any]:
    return {"default": {"panel": ["ann", "bob"], "judge": "ann", **fields}}


def test_seats_and_judges_keep_their_tools(tmp_path: Path) -> None:
    judge = {"model": "ann", "tools": ["calc"], "max_tool_calls": 2}
    seat = {"model": "ann", "tools": ["calc", "handbook"], "max_tool_calls": 3, "tool_choice": "required"}
    config = load(written(tmp_path, ensembles=ensemble(panel=[seat, seat], judge=judge)))
    seats = config.ensembles["default"].seats
    assert [(seat.name, seat.tools) for seat in seats] == [
        ("ann", SeatTools(("calc", "handbook"), 3, "required")),
        ("ann#2", SeatTools(("calc", "handbook"), 3, "required")),
    ]
    assert config.ensembles["default"].judge.seat_tools == SeatTools(("calc",), 2, "auto")


@pytest.mark.parametrize(
    ("changes", "place", "problem"),
    [
        ({"ensembles": ensemble(panel=[{"model": "ann", "tools": ["wiki"]}, "bob"])}, "tools", "'wiki'"),
        ({"ensembles": ensemble(panel=[{"model": "ann", "tools": ["calc", "calc"]}, "bob"])}, "tools", "twice"),
        ({"ensembles": ensemble(panel=["ann", {"model": "bob", "tools": ["calc"]}])}, "tools", "tool_parser"),
        ({"ensembles": ensemble(judge={"model": "bob", "tools": ["calc"]})}, "judge", "tool_parser"),
        ({"ensembles": ensemble(judge={"model": "ann", "tool_choice": "auto"})}, "tool_choice", "needs tools"),
        ({"ensembles": ensemble(panel=[{"model": "ann", "tool_choice": "required"}])}, "tool_choice", "needs tools"),
        ({"ensembles": ensemble(presets={"p": {"panel": [{"model": "bob", "tools": ["calc"]}]}})}, "p", "tool_parser"),
        ({"documents": {"calc": {"folder": "docs"}, "handbook": {"folder": "docs"}}}, "calc", "both"),
    ],
)
def test_tools_that_cannot_be_used_are_told_with_their_place(
    tmp_path: Path, changes: dict[str, Any], place: str, problem: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, **changes))
    error = caught.value.errors[0] if isinstance(caught.value, Mistakes) else caught.value
    assert place in error.place
    assert problem in error.problem
