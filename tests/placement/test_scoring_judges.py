"""Judges that score: what `cappella check` and `plan` count for them, and what `check` tells of models without a GPU."""

import json
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, load
from cappella.placement import advice, checks, estimate, machine
from cappella.placement.estimate import Estimate
from support.command_line import cappella
from support.weights_folder import TINY, write_model

LONG = {**TINY, "max_position_embeddings": 8192}
SCORER = {**LONG, "architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}
BERT_SCORER = {
    **SCORER,
    "architectures": ["BertForSequenceClassification"],
    "model_type": "bert",
    "is_causal": False,
}


def config(home: Path, judge: Any, panel: list[Any], **keys: Any) -> Config:
    write_model(home / "ann", LONG)
    write_model(home / "rank", judge)
    models = {
        "ann": {"weights": "ann", "max_model_len": 4096},
        "rank": {"weights": "rank", "task": "rerank", "max_model_len": 4096, **keys},
    }
    ensembles = {"default": {"panel": panel, "judge": "rank", "strategy": "select"}}
    (home / "c.yaml").write_text(json.dumps({"models": models, "ensembles": ensembles}))
    return load.load(home / "c.yaml")


def estimated(loaded: Config, gpus: str = "H100") -> Estimate:
    return estimate.estimates(loaded, advice.plan(loaded, machine.described(gpus)))["default"]


@pytest.mark.parametrize("tokens", [3000, 4095])
def test_a_judge_that_scores_needs_room_for_one_answer_only(tmp_path: Path, tokens: int) -> None:
    panel = [{"model": "ann", "samples": 4, "max_completion_tokens": tokens}]
    assert checks.mistakes(config(tmp_path, SCORER, panel), None) == []


def test_a_judge_that_scores_without_room_for_the_longest_answer_is_told(tmp_path: Path) -> None:
    panel = [{"model": "ann", "max_completion_tokens": each} for each in (100, 1000)]
    (found,) = checks.mistakes(config(tmp_path, SCORER, panel, max_model_len=1000), None)
    assert found.place == "ensembles.default.judge"
    assert "an answer of up to 1000 leaves no room" in found.problem


def test_a_judge_that_scores_reads_the_prompt_with_each_answer(tmp_path: Path) -> None:
    loaded = config(tmp_path, SCORER, [{"model": "ann", "samples": 8}], max_num_seqs=16)
    found = estimated(loaded)
    # 2,000 + 8 * 800 would be more than 4,096.
    assert found.short == {}
    assert (found.limited_by, found.runs_at_once) == ("rank", 2)
    assert found.judge_s
    one = estimated(config(tmp_path / "one", SCORER, ["ann"], max_num_seqs=16))
    assert found.judge_s == pytest.approx(8 * (one.judge_s or 0))


def test_an_encoder_that_judges_has_as_many_runs_as_it_reads_texts(tmp_path: Path) -> None:
    loaded = config(tmp_path, BERT_SCORER, ["ann", "ann"], max_num_seqs=16)
    found = estimated(loaded)
    assert (found.limited_by, found.runs_at_once) == ("rank", 8)


@pytest.mark.parametrize(
    ("task", "judge", "says"),
    [
        ({"task": "reward"}, SCORER, "models.rank.task: task: reward reads conversations, and this model has no chat"),
        ({}, LONG, "models.rank.task: task: rerank needs a model that scores"),
        ({"max_model_len": 512}, SCORER, "models.rank.max_model_len: 512 is more than the model's own context of 128"),
    ],
)
def test_a_machine_without_gpus_tells_what_does_not_suit_its_task(
    tmp_path: Path, task: dict[str, str], judge: Any, says: str
) -> None:
    loaded = config(tmp_path, judge, ["ann"], **task)
    if "max_model_len" in task:
        (tmp_path / "rank" / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    (found,) = checks.mistakes(loaded, None)
    assert str(found).startswith(says)


def test_a_model_with_a_mistake_and_no_key_is_not_called_ok(tmp_path: Path) -> None:
    config(tmp_path, SCORER, ["ann"])
    path = tmp_path / "c.yaml"
    path.write_text(path.read_text().replace('"task": "rerank", ', ""))
    done = cappella("check", str(path))
    assert done.returncode == 2
    assert "models.rank: LlamaForSequenceClassification writes no text" in done.stderr
    assert "ann: ok" in done.stdout
    assert "rank: ok" not in done.stdout
