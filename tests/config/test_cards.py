"""Model cards and the configs over them: complete, consistent, and in agreement with vLLM and the planner."""

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cappella.config import Config, cards, load
from cappella.errors import ConfigError
from cappella.placement import advice, architecture, checks, machine
from support.real_deployment import ROOT

CONFIGS = ROOT / "model_configs"
Known = Mapping[str, cards.Card]
NAMES = sorted(path.stem for path in cards.SHIPPED.glob("*.yaml"))
# The cards with the least memory of those that scripts/ready_configs plans each config for.
MACHINES = {
    "1x24gb": "L4",
    "1x48gb": "L40S",
    "1x80gb": "H100",
    "1x141gb": "H200",
    "2x24gb": "2xL4",
    "4x80gb": "4xH100",
    "8x80gb": "8xH100",
}

VLLM = """
import json
from vllm.model_executor.models import ModelRegistry
from vllm.reasoning import ReasoningParserManager
from vllm.tool_parsers import ToolParserManager
print(json.dumps({
    "architectures": sorted(ModelRegistry.get_supported_archs()),
    "tool_parser": ToolParserManager.list_registered(),
    "reasoning_parser": ReasoningParserManager.list_registered(),
}))
"""


@pytest.fixture(scope="module")
def known() -> Known:
    """All cards, by the names of their files; to read them takes 2 s of CPU time."""
    return {name: cards.load(cards.SHIPPED / f"{name}.yaml") for name in NAMES}


def test_there_are_cards_of_many_families(known: Known) -> None:
    assert len(known) >= 25
    assert len({card.hub_id.split("/")[0] for card in known.values()}) >= 8


@pytest.mark.parametrize("name", NAMES)
def test_a_card_can_be_planned_with(known: Known, name: str) -> None:
    card = known[name]
    read = architecture.read(card.config, name)
    assert sum(read.layers.values()) <= read.depth
    assert card.context_tokens >= 2048
    if read.quantisation.method is None:
        assert card.weight_bytes == pytest.approx(2 * card.parameters, rel=0.01)
    else:
        assert card.weight_bytes < 2 * card.parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_of_a_card_are_those_of_its_shape(known: Known, name: str) -> None:
    card = known[name]
    text = architecture.text_config(card.config)
    special = {
        "linear_num_value_heads",
        "hybrid_override_pattern",
        "mamba_n_heads",
        "kv_lora_rank",
        "layers_block_type",
    }
    if special & set(text):
        pytest.skip("its layers are not all alike")
    # Draft models are not part of these shapes, nor wider heads of some layers; encoders are in 16 bits.
    room = 0.04 if "num_nextn_predict_layers" in text else 0.03 if "global_head_dim" in text else 0.01
    assert card.parameters - card.encoder_bytes // 2 == pytest.approx(counted(text, card.config), rel=room)


def test_every_card_of_a_model_that_takes_images_has_the_size_of_its_encoder(known: Known) -> None:
    with_encoder = {name for name, card in known.items() if card.encoder_bytes}
    assert with_encoder == {name for name, card in known.items() if "vision_config" in card.config}


def counted(text: Mapping[str, Any], config: Mapping[str, Any]) -> int:
    """Embeddings, attention, gated feed-forward layers and experts."""
    hidden, layers, vocabulary = text["hidden_size"], text["num_hidden_layers"], text["vocab_size"]
    head = text.get("head_dim") or hidden // text["num_attention_heads"]
    queries = text["num_attention_heads"] * head
    keys = (text.get("num_key_value_heads") or text["num_attention_heads"]) * head
    tied = bool(text.get("tie_word_embeddings", config.get("tie_word_embeddings", False)))
    attention = layers * hidden * (2 * queries + 2 * keys)
    return int(vocabulary * hidden * (1 if tied else 2) + attention + _feed_forward(text))


def _feed_forward(text: Mapping[str, Any]) -> int:
    hidden, layers = text["hidden_size"], text["num_hidden_layers"]
    experts = text.get("num_experts") or text.get("num_local_experts") or text.get("n_routed_experts") or 0
    dense = 3 * hidden * text["intermediate_size"]
    if not experts:
        return int(layers * dense)
    first = text.get("first_k_dense_replace") or 0
    inner = text.get("moe_intermediate_size") or text["intermediate_size"]
    shared = text.get("n_shared_experts") or text.get("num_shared_experts") or 0
    if text.get("model_type") == "llama4_text":
        shared = 1
    return int(first * dense + (layers - first) * (3 * hidden * inner * (experts + shared) + hidden * experts))


@pytest.mark.vllm
def test_real_vllm_has_what_a_card_names(known: Known) -> None:
    done = subprocess.run([sys.executable, "-c", VLLM], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    has = json.loads(done.stdout.splitlines()[-1])
    for name, card in known.items():
        assert set(card.config["architectures"]) <= set(has["architectures"]), name
        assert card.tool_parser is None or card.tool_parser in has["tool_parser"], name
        assert card.reasoning_parser is None or card.reasoning_parser in has["reasoning_parser"], name


def test_the_table_of_ready_configs_is_what_the_script_writes() -> None:
    done = subprocess.run([sys.executable, str(ROOT / "scripts" / "ready_configs"), "--check"], check=False)
    assert done.returncode == 0, "run scripts/ready_configs"


@pytest.mark.parametrize("name", MACHINES)
def test_the_judge_has_room_for_the_longest_answers(name: str) -> None:
    assert not list(checks._of_ensembles(load.load(CONFIGS / f"{name}.yaml")))


@pytest.mark.parametrize("name", MACHINES)
def test_the_ensemble_of_a_machine_fits_it(known: Known, name: str) -> None:
    config = load.load(CONFIGS / f"{name}.yaml")
    plan = advice.plan(config, machine.described(MACHINES[name]))
    ensemble = config.ensembles["default"]
    families = {known[config.models_by_name[seat.model].card.stem].hub_id.split("/")[0] for seat in ensemble.seats}  # type: ignore[union-attr]
    assert len(ensemble.seats) == 3
    assert len(families) == 3, "members of one maker have the same blind spots"
    assert all(each.sequences >= 1 for each in plan.placed.values())


def write(folder: Path, card: str, **fields: Any) -> Config:
    model = {"weights": "nowhere", "card": str(cards.SHIPPED / card), "max_model_len": 4096, **fields}
    ensemble = {"panel": ["ann", {"model": "ann", "temperature": 0.1}], "judge": "ann"}
    path = folder / "c.yaml"
    path.write_text(json.dumps({"models": {"ann": model}, "ensembles": {"default": ensemble}}))
    return load.load(path)


def test_a_card_says_what_the_config_does_not(known: Known, tmp_path: Path) -> None:
    card = known["qwen3-8b"]
    config = write(tmp_path, "qwen3-8b.yaml")
    assert config.local["ann"].tool_parser == card.tool_parser
    assert config.local["ann"].reasoning_parser == card.reasoning_parser
    first, second = config.ensembles["default"].seats
    assert first.sampling.temperature == card.sampling.temperature
    assert second.sampling.temperature == 0.1
    assert config.ensembles["default"].judge.temperature == 0
    assert write(tmp_path, "qwen3-8b.yaml", tool_parser=None).local["ann"].tool_parser is None


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("gated:", "gatted:", r"card\.yaml:\d+: gatted: unknown key\. Did you mean gated\?"),
        ("hub_id: ", "hub_id: x", r"card\.yaml:1: hub_id"),
        ("images: false", "images: perhaps", r"card\.yaml:\d+: images"),
    ],
)
def test_a_mistake_in_a_card_is_named_with_its_line(tmp_path: Path, old: str, new: str, says: str) -> None:
    text = (cards.SHIPPED / "qwen3-8b.yaml").read_text()
    assert old in text
    (tmp_path / "card.yaml").write_text(text.replace(old, new).replace("xQwen/", "x y/"))
    with pytest.raises(ConfigError, match=says):
        cards.load(tmp_path / "card.yaml")
