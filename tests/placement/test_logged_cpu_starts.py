"""The plan against starts on a CPU: each engine, and what all share, within 5 % of what they took.

`logged_cpu_starts.json` has what was measured, by PSS: real weights, and the demo. Of an engine that was not used for long the
plan's room for long use is left out.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from cappella.config import Model, cards
from cappella.placement import overhead
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.machine import Device, Machine
from support.real_deployment import ROOT

MIB = 1 << 20
LOGGED = json.loads(Path(__file__).with_name("logged_cpu_starts.json").read_text())
WITH_AVX2 = Machine([Device("memory", 0, 64 << 30, 64 << 30)], gpu=False, slow_in_16_bits=True)
Start = Mapping[str, Any]


def measured(start: Start, folder: Path) -> Footprint:
    """Of weights in this repository, or of a card of the others' shape."""
    name = start["model"]
    weights, card = ROOT / "model_configs" / name, None
    if shape := LOGGED["shapes"].get(name):
        facts = yaml.safe_load((cards.SHIPPED / "llama-3.1-8b-instruct.yaml").read_text())
        card = folder / "card.yaml"
        card.write_text(yaml.safe_dump({**facts, **shape, "hub_id": f"local/{name}"}))
    return footprint("ann", Model(weights=weights, card=card, **start["settings"]), WITH_AVX2)


@pytest.mark.parametrize("start", LOGGED["starts"], ids=lambda start: start["model"])
def test_a_plan_has_what_a_start_on_a_cpu_took(start: Start, tmp_path: Path) -> None:
    found = measured(start, tmp_path)
    unused = 0 if start.get("used_long") else overhead.CPU_USE_BYTES
    planned = {"engine_mib": found.min_bytes(1) - unused, "shared_mib": overhead.CPU_SHARED_BYTES}
    for name, taken in start["logged"].items():
        assert planned[name] / MIB == pytest.approx(taken, rel=0.05), name


def test_the_embeddings_and_the_head_are_kept_packed_too(tmp_path: Path) -> None:
    for start in LOGGED["starts"][:2]:
        found = measured(start, tmp_path)
        shape, plain = found.architecture, LOGGED["shapes"][start["model"]]["parameters"]
        packed = found.weight_bytes(1) - shape.rope_bytes - 4 * plain
        assert packed == 2 * 4 * shape.vocab_size * shape.hidden_size
