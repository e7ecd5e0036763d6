"""Models that write nothing, in a config: what suits them, and every place where they cannot stand."""

from pathlib import Path

import pytest

from cappella.config.load import load
from cappella.errors import ConfigError
from support.config_file import write_config

GOOD = """\
models:
  ann: {weights: ./ann, max_model_len: 64, kv_cache_bytes: 1MiB}
  emb: {weights: ./emb, max_model_len: 64, task: embed}
  rm: {weights: ./rm, max_model_len: 64, kv_cache_bytes: 1MiB, task: reward}
  rank: {weights: ./rank, max_model_len: 64, task: rerank}
ensembles:
  default:
    panel: [ann, ann]
    judge: {model: rm}
    strategy: select
"""


@pytest.mark.parametrize("judge", ["rm", "rank"])
def test_a_model_that_scores_may_judge_select(tmp_path: Path, judge: str) -> None:
    config = load(write_config(tmp_path, GOOD.replace("model: rm", f"model: {judge}")))
    assert config.ensembles["default"].judge.model == judge
    assert config.models["emb"].capabilities.task == "embed"
    assert config.models["ann"].capabilities.writes


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("[ann, ann]", "[ann, emb]", r"c.yaml:8: ensembles.default.panel.1: emb .* task: embed writes no answers"),
        ("[ann, ann]", "[rm]", r"c.yaml:8: ensembles.default.panel.0: rm "),
        ("model: rm", "model: emb", r"c.yaml:9: ensembles.default.judge: .* task: embed scores no answers"),
        ("select", "vote", r"c.yaml:9: ensembles.default.judge: .* strategy vote needs more.*Use strategy: select"),
        ("select", "debate", r"c.yaml:9: ensembles.default.judge: "),
        ("    strategy: select\n", "", r"c.yaml:9: ensembles.default.judge: .* strategy synthesize"),
        ("select", "select\n    early_exit: judge", r"c.yaml:9: ensembles.default.judge: .*early_exit: judge"),
        ("select", "select\n    gate: {mode: judge, model: ann}", r"c.yaml:9: ensembles.default.judge: .*gate: judge"),
        ("select", "select\n    gate: {mode: rules, model: rm}", r"c.yaml:11: ensembles.default.gate.*writes no"),
        ("model: rm", "model: rm, criteria: Be brief.", r"c.yaml:9: ensembles.default.judge.criteria: "),
        ("select", "select\n    presets: {p: {strategy: vote}}", r"ensembles.default.presets.p.*strategy vote"),
        ("select", "select\n    presets: {p: {panel: [ann, rm]}}", r"ensembles.default.presets.p.panel.1: rm"),
        ("task: embed", "task: embed, tool_parser: hermes", r"c.yaml:3: models.emb: tool_parser is for a model that"),
        ("task: embed", "task: embed, images: true", r"models.emb: images is for"),
        ("task: embed", "task: embed, prompt_lookup_tokens: 4", r"models.emb: prompt_lookup_tokens is for"),
        ("task: embed", "task: embeddings", r"models.emb.task: .*'embed'"),
        ("weights: ./emb", 'url: "http://127.0.0.1:1/v1"', r"models.emb: task: embed needs api: vllm"),
    ],
)
def test_a_mistake_is_told_with_its_place(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert old in GOOD
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        load(write_config(tmp_path, GOOD.replace(old, new)))


def test_a_judge_that_scores_cannot_judge_calls_of_tools(tmp_path: Path) -> None:
    text = GOOD.replace("kv_cache_bytes: 1MiB}", "kv_cache_bytes: 1MiB, tool_parser: hermes}", 1)
    with pytest.raises(ConfigError, match=r"ensembles.default.judge: .*cannot judge calls of tools"):
        load(write_config(tmp_path, text.replace("select", "select\n    tools: true")))


def test_a_card_gives_no_parsers_to_a_model_that_writes_nothing(tmp_path: Path) -> None:
    text = GOOD.replace("weights: ./emb", "weights: ./emb, card: Qwen/Qwen3-8B")
    model = load(write_config(tmp_path, text)).local["emb"]
    assert (model.tool_parser, model.reasoning_parser) == (None, None)


def test_a_remote_model_may_have_a_task(tmp_path: Path) -> None:
    text = GOOD.replace("weights: ./rank", 'url: "http://127.0.0.1:1/v1", api: vllm')
    assert load(write_config(tmp_path, text)).models["rank"].capabilities.task == "rerank"
