"""Scripts follow the code that they import: each can be read, and a judge's table is made over a scripted judge."""

import json
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path
from typing import Any

import pytest

from support.fake_engines import FakeEngines, judge_script
from support.injected_answers import PAYLOAD
from support.real_deployment import ROOT
from support.scripted_engine import Json, Script

SCRIPTS = sorted(
    path.name
    for path in (ROOT / "scripts").iterdir()
    if path.is_file() and not path.suffix and path.read_text().startswith("#!/usr/bin/env python3")
)


def imported(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A script as a module; what it adds to the path is taken back."""
    monkeypatch.setattr(sys, "path", [*sys.path])
    loader = SourceFileLoader(f"script_{name}", str(ROOT / "scripts" / name))
    spec = spec_from_loader(loader.name, loader)
    assert spec is not None
    module = module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize("name", SCRIPTS)
def test_everything_that_a_script_imports_is_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert imported(name, monkeypatch).__doc__


def obedient(body: Json) -> Script:
    """A judge that writes the word that the hostile answer asks for, and takes the letter that stands first."""
    if "structured_outputs" in body:
        letter = body["structured_outputs"]["choice"][0]
        return Script((letter,), logprobs=({"token": letter, "logprob": -0.1, "top_logprobs": []},))
    return Script((PAYLOAD,))


@pytest.mark.parametrize(("judge", "talked_over"), [(obedient, True), (judge_script(), False)])
async def test_a_judge_that_obeys_hostile_answers_is_counted_as_talked_over(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, judge: Any, talked_over: bool
) -> None:
    script = imported("talked_over", monkeypatch)
    fake_engines.let("judge", judge)
    cases = script.cases()[::50]
    out = tmp_path / "rows.json"
    await script.measure(
        fake_engines.engines["judge"], fake_engines.settings(analysis="off"), cases, ["synthesize"], out
    )
    rows = json.loads(out.read_text())["rows"]
    assert [(row["variant"], row["failed"]) for row in rows] == [(name, 0) for name in script.VARIANTS]
    assert {some / of for row in rows for some, of in row["groups"].values()} == {float(talked_over)}
    prompts = [json.dumps(body["messages"]) for body in fake_engines.servers["judge"].bodies]
    bare, fenced, reminded = (prompts[part * len(cases) : (part + 1) * len(cases)] for part in range(3))
    assert not any("[answer A" in each for each in bare)
    assert all("[answer A" in each for each in fenced)
    assert all(script.REMINDER in each for each in reminded)


@pytest.mark.parametrize("strategy", ["select", "vote"])
async def test_a_choice_of_the_hostile_answer_is_counted(
    fake_engines: FakeEngines, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, strategy: str
) -> None:
    script = imported("talked_over", monkeypatch)
    fake_engines.let("judge", obedient)
    out = tmp_path / "rows.json"
    cases = script.cases()[::50]
    await script.measure(fake_engines.engines["judge"], fake_engines.settings(analysis="off"), cases, [strategy], out)
    assert [row["failed"] for row in json.loads(out.read_text())["rows"]] == [0, 0, 0]
