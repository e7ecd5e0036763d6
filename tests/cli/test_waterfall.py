"""The waterfall of a run, and the pieces of text beside it."""

import itertools
import json
from typing import Any

import pytest
from rich.console import Console, RenderableType

from cappella.cli.client.analysis import AnalysisBlock, begun
from cappella.cli.client.attribution import passages
from cappella.cli.client.text import safe
from cappella.cli.client.waterfall import Waterfall
from support.fake_engines import ANALYSIS


def drawn(what: RenderableType, width: int = 80) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as capture:
        console.print(what)
    return [line.rstrip() for line in capture.get().splitlines()]


def call(
    role: str, model: str, start_ms: float, first_token_ms: float | None, ms: float, tokens: int
) -> dict[str, Any]:
    spent = {"completion_tokens": tokens, "start_ms": start_ms, "first_token_ms": first_token_ms, "ms": ms}
    return {"role": role, "model": model, **spent}


CALLS = [
    call("panel", "ann", 0, 100, 500, 41),
    call("panel", "bob", 0, 100, 1000, 91),
    call("prefill", "judge", 500, 60, 100, 1),
    call("prefill", "judge", 700, None, 100, 0),
    call("final", "judge", 1000, 200, 1000, 101),
]
TIMINGS = {
    "total_ms": 2000,
    "floor_ms": 1800,
    "overhead_ms": 3,
    "early_prefill_tokens": 607,
    "late_prefill_tokens": 279,
}


def test_every_call_stands_where_and_as_long_as_it_was() -> None:
    lines = drawn(Waterfall({"timings": TIMINGS}, {"fusion_details": CALLS}))
    assert all(len(line) <= 80 for line in lines)
    ann, bob, early, final, floor = (line[len("judge reads early") + 1 :] for line in lines[:5])
    cells = len(floor.split(" ")[0]) / 0.9
    reads, writes, hidden = (
        [(line.find(glyph) / cells, line.count(glyph) / cells) for line in (ann, bob, early, final)]
        for glyph in ("░", "█", "▒")
    )
    a_cell = pytest.approx
    for found, begin, length in [
        (reads[0], 0, 0.05),
        (writes[0], 0.05, 0.2),
        (writes[1], 0.05, 0.45),
        (hidden[2], 0.25, 0.1),
        (reads[3], 0.5, 0.1),
        (writes[3], 0.6, 0.4),
    ]:
        assert list(found) == [a_cell(begin, abs=0.04), a_cell(length, abs=0.04)]
    assert ann.endswith("100 ms + 400 ms, 41 tok, 100/s")
    assert early.endswith("2 calls, off the critical path")
    assert floor.endswith("1.8 s, the run took 1.11x")
    assert "607 tokens of the judge's prompt were read early, 279 late" in lines[6]


def test_a_member_without_a_token_and_a_role_of_tomorrow_are_drawn_too() -> None:
    calls = [call("panel", "ann", 0, None, 500, 0), call("dreams", "bob", 0, 5, 10, 1)]
    lines = drawn(Waterfall({"timings": {**TIMINGS, "floor_ms": 0}}, {"fusion_details": calls}), 60)
    assert lines[0].endswith("500 ms, no tokens")
    assert lines[1].startswith("bob dreams")
    # One token, or some in one burst, have no speed.
    assert lines[1].endswith("5 ms + 5 ms, 1 tok")
    assert all(len(line) <= 60 for line in lines)


def test_an_analysis_can_be_read_at_every_moment_of_its_writing_and_only_grows() -> None:
    text = json.dumps(ANALYSIS)
    seen = [begun(text[:length], {"A": "ann", "B": "bob"}) for length in range(len(text) + 1)]
    assert seen[0] == {}
    sizes = [len(json.dumps(each)) for each in seen]
    # A key whose value is still to come may appear and go; nothing that was shown does.
    assert all(later >= earlier - len('{"model": "", "stance": ""}') for earlier, later in itertools.pairwise(sizes))
    assert seen[-1]["contradictions"][0]["stances"] == [{"model": "ann", "stance": "warm"}]
    assert seen[-1]["partial_coverage"][0]["models"] == ["ann", "bob"]
    for each in seen:
        drawn(AnalysisBlock(each))


def test_stances_stand_side_by_side_where_there_is_room_and_below_each_other_elsewhere() -> None:
    stances = [{"model": "ann", "stance": "warm"}, {"model": "bob", "stance": "cold"}]
    block = AnalysisBlock({"contradictions": [{"topic": "tone", "stances": stances}]})
    assert any("warm" in line and "cold" in line for line in drawn(block, 80))
    assert {"  • ann: warm", "  • bob: cold"} <= set(drawn(block, 40))


def test_a_passage_is_supported_by_who_used_most_of_its_words_and_all_its_numbers() -> None:
    said = {"ann": "The room is 412, and the price 3.50.", "bob": "The room is 17.", "cat": "Nobody knows the room."}
    room, price, who, own = passages("The room is 412.\nIts price: 3.50. Nobody knows it. Trust me!", said)
    assert room.supporters == [("ann", 1.0)]
    assert dict(price.supporters) == {"ann": pytest.approx(2 / 3)}
    assert who.supporters == [("cat", 1.0)]
    assert own.supporters == []
    assert passages("\n… !\n", said) == []


def test_control_characters_become_pictures() -> None:
    assert safe("a\x1b[31m\tb\r\n\x07\x7f\x9bc") == "a␛[31m    b\n␇␡�c"
