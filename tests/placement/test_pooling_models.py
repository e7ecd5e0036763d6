"""Plans of models that write nothing: their memory, their context, and whether they suit their task."""

import json
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Model
from cappella.engines.vllm import server_args
from cappella.errors import ConfigError
from cappella.placement import machine
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.planner import Placed
from support.weights_folder import TINY, write_model

BERT = {**TINY, "architectures": ["BertModel"], "model_type": "bert", "max_position_embeddings": 512}
SCORER = {**TINY, "architectures": ["LlamaForSequenceClassification"], "id2label": {"0": "LABEL_0"}}


def planned(folder: Path, config: Any, **keys: Any) -> Footprint:
    weights = write_model(folder, config)
    return footprint("m", Model(weights=weights, **keys), machine.own_memory())


def test_an_encoder_keeps_no_cache_and_reads_its_longest_text_in_one_step(tmp_path: Path) -> None:
    each = planned(tmp_path, {**BERT, "max_position_embeddings": 8192}, task="embed", max_model_len=8192)
    assert each.min_kv_bytes(1) == each.sequence_bytes(1) == 0
    assert each.step_tokens == 8192


def test_a_decoder_keeps_a_cache_and_samples_nothing(tmp_path: Path) -> None:
    keys: Any = {"max_model_len": 256, "max_num_seqs": 256}
    wide = {"vocab_size": 100_000}
    scores = planned(tmp_path / "a", {**SCORER, **wide}, task="rerank", **keys)
    writes = planned(tmp_path / "b", {**TINY, **wide}, **keys)
    assert scores.min_kv_bytes(1) == writes.min_kv_bytes(1) > 0
    assert scores.overhead_bytes(1) < writes.overhead_bytes(1)
    assert scores.step_tokens == writes.step_tokens


def test_all_tokens_make_the_embedding_where_its_files_say_so(tmp_path: Path) -> None:
    write_model(tmp_path, {**TINY, "max_position_embeddings": 8192})
    (tmp_path / "1_Pooling").mkdir()
    pooling = tmp_path / "1_Pooling" / "config.json"
    model = Model(weights=tmp_path, task="embed", max_model_len=8192)
    for last, step in ((True, 2048), (False, 8192)):
        pooling.write_text(json.dumps({"pooling_mode_lasttoken": last, "pooling_mode_mean_tokens": not last}))
        assert footprint("m", model, machine.own_memory()).step_tokens == step


def test_files_beside_the_config_lower_the_context(tmp_path: Path) -> None:
    write_model(tmp_path, {**BERT, "max_position_embeddings": 514, "position_embedding_type": "absolute"})
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 512}))
    model = Model(weights=tmp_path, task="embed")
    assert footprint("m", model, machine.own_memory()).model.max_model_len == 512
    (tmp_path / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 128}))
    assert footprint("m", model, machine.own_memory()).model.max_model_len == 128
    with pytest.raises(ConfigError, match="max_model_len"):
        footprint("m", model.model_copy(update={"max_model_len": 256}), machine.own_memory())


@pytest.mark.parametrize(
    ("config", "keys", "says"),
    [
        (BERT, {}, "BertModel writes no text.*Set task: embed"),
        (SCORER, {}, "writes no text.*Set task: reward or rerank"),
        (TINY, {"task": "reward"}, "models.m.task: .*this is a LlamaForCausalLM"),
        ({**SCORER, "id2label": {"0": "a", "1": "b"}}, {"task": "rerank"}, "models.m.task: .*2 labels"),
        (SCORER, {"task": "reward"}, "models.m.task: .*no chat template.*task: rerank"),
        (BERT, {"task": "embed", "kv_cache_bytes": 1 << 20}, "models.m.kv_cache_bytes: .*encoder"),
    ],
)
def test_a_model_that_does_not_suit_its_task_is_found_before_the_start(
    tmp_path: Path, config: Any, keys: Any, says: str
) -> None:
    with pytest.raises(ConfigError, match=f"(?s){says}"):
        planned(tmp_path, config, **keys)


def test_overrides_of_the_models_config_are_the_operators_word(tmp_path: Path) -> None:
    overrides = {"hf_overrides": {"architectures": ["LlamaForSequenceClassification"]}}
    assert planned(tmp_path, TINY, task="rerank", engine_args=overrides).min_kv_bytes(1) > 0


def test_the_server_is_told_that_nothing_is_generated(tmp_path: Path) -> None:
    model = Model(weights=tmp_path, task="embed", max_model_len=64)
    placed = Placed("m", (0,), 1, 1, 0, 64, 1.0, 64, "there is room")
    command = server_args.arguments("m", model, placed, tmp_path / "s")
    assert command[command.index("--runner") + 1] == "pooling"
    assert "--kv-cache-memory-bytes" not in command
    assert "--runner" not in server_args.arguments("m", model.model_copy(update={"task": "generate"}), placed, tmp_path)
