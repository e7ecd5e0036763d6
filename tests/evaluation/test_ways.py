"""The request of each way: which stored answers it brings along, and who is asked anew."""

from pathlib import Path

import pytest

from cappella.config import load
from cappella.evaluation import ways
from cappella.evaluation.data import Question
from cappella.evaluation.ensemble import Ensemble, from_config
from cappella.types import Json

CONFIG = """
models:
  ann: {{weights: {folder}, tool_parser: hermes}}
  bob: {{weights: {folder}}}
tools:
  calc: {{builtin: calculator}}
ensembles:
  default:
    panel: {panel}
    judge: bob
    presets:
      tools: {{panel: [{{model: ann, tools: [calc]}}, {{model: bob}}]}}
      warm: {{panel: [{{model: ann, temperature: 1}}, {{model: bob}}]}}
      same: {{strategy: select}}
"""
PLAIN = "[{model: ann}, {model: bob}]"
WITH_TOOLS = "[{model: ann, tools: [calc]}, {model: bob}, {model: bob}]"


def ensemble_of(tmp_path: Path, panel: str) -> Ensemble:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG.format(panel=panel, folder=tmp_path))
    return from_config(load.load(path), "default")


def fusion_of(ensemble: Ensemble, name: str) -> Json:
    """The field `fusion` of a way in which each member's stored answer is its name."""
    ((way,), _) = ways.read(name, ensemble, leave_out=False)
    answers = [(member, member.name) for member in ensemble.members]
    question = Question("q1", ({"role": "user", "content": "2+2?"},), "4")
    fusion = ways.run_body(ensemble, way, question, answers)["fusion"]
    assert [each["content"] for each in fusion.get("answers", ())] == ways.used(ensemble, way)
    return dict(fusion)


@pytest.mark.parametrize(("preset", "given"), [("same", ["ann", "bob"]), ("tools", ["bob"]), ("warm", ["bob"])])
def test_a_preset_asks_those_of_its_seats_anew_that_are_not_the_ensembles(
    tmp_path: Path, preset: str, given: list[str]
) -> None:
    fusion = fusion_of(ensemble_of(tmp_path, PLAIN), preset)
    assert fusion["preset"] == preset
    assert [answer["model"] for answer in fusion["answers"]] == given


def test_a_strategy_asks_seats_with_tools_anew_since_their_stored_answers_used_none(tmp_path: Path) -> None:
    fusion = fusion_of(ensemble_of(tmp_path, WITH_TOOLS), "select")
    assert [answer["model"] for answer in fusion["answers"]] == ["bob", "bob#2"]
    assert "analysis_models" not in fusion


def test_no_seat_is_left_out_where_one_has_tools(tmp_path: Path) -> None:
    runs, _ = ways.read("select", ensemble_of(tmp_path, WITH_TOOLS), leave_out=True)
    assert [run.name for run in runs] == ["select"]


def test_it_is_said_why_nobody_is_left_out(tmp_path: Path) -> None:
    assert "tools" in str(ways.why_all_stay(ensemble_of(tmp_path, WITH_TOOLS)))
    assert "two members" in str(ways.why_all_stay(ensemble_of(tmp_path, PLAIN)))
    assert ways.why_all_stay(ensemble_of(tmp_path, "[{model: ann}, {model: bob}, {model: bob}]")) is None
