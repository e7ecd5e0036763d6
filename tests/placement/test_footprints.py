"""What a footprint has beside the files of the weights: tables of positions, padding, blocks, encoders that are not loaded."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cappella.config import Model, Placement, cards
from cappella.engines import builder
from cappella.engines.deployment import Deployment
from cappella.placement import architecture, checkpoint, machine, overhead, rope
from cappella.placement.footprint import Footprint, footprint
from cappella.placement.machine import Device, Machine
from support.weights_folder import TINY, Shapes, llama_shapes, write_model

GIB = 1 << 30
MIB = 1 << 20
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "original_max_position_embeddings": 8192}
YARN = {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096}


def of_card(name: str, on: str = "H100", **fields: Any) -> Footprint:
    card = cards.SHIPPED / f"{name}.yaml"
    fields = {"max_model_len": 8192, "images": cards.load(card).images, **fields}
    return footprint("ann", Model(weights=Path("/nowhere"), card=card, **fields), machine.described(on))


@pytest.mark.parametrize(
    ("text", "rows_of_128"),
    [
        ({}, 1000),
        ({"rope_scaling": LLAMA3}, 1000),
        ({"rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 8000),
        ({"rope_scaling": YARN}, 4096 * 40),
        ({"rope_scaling": {"type": "longrope"}, "original_max_position_embeddings": 100}, 1100),
        ({"rope_parameters": {"rope_type": "default", "mrope_section": [16, 24, 24]}}, 4000),
        ({"partial_rotary_factor": 0.5}, 500),
        ({"qk_rope_head_dim": 64}, 500),
        ({"model_type": "gpt_oss"}, 2000),
        ({"model_type": "nemotron_h"}, 0),
        ({"position_embedding_type": "nope"}, 0),
        # A table for each kind of layer, of which one is scaled.
        ({"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 9000),
        ({"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2}, "sliding_attention": {}}}, 3000),
    ],
)
def test_a_table_has_a_row_for_each_position(text: dict[str, Any], rows_of_128: int) -> None:
    found = rope.table_bytes({"max_position_embeddings": 1000, **text}, head_size=128, value_bytes=2)
    assert found == rows_of_128 * 128 * 2


def test_tables_are_whole_on_every_gpu_of_a_split() -> None:
    scout = of_card("llama-4-scout-17b-16e-instruct", "4xH100")
    assert scout.weight_bytes(4) - scout.stored_bytes(4) == 10485760 * 128 * 2


def test_a_draft_model_in_the_checkpoint_is_not_loaded() -> None:
    card = cards.load(cards.SHIPPED / "qwen3-next-80b-a3b-instruct.yaml")
    assert of_card("qwen3-next-80b-a3b-instruct").stored_bytes(1) == card.weight_bytes - 2 * 1650471424


@pytest.mark.parametrize("name", ["gemma-3-12b-it", "ministral-3-8b-instruct-2512", "qwen3.5-9b"])
def test_an_encoder_that_is_not_loaded_is_not_in_the_weights_of_a_card(name: str) -> None:
    card = cards.load(cards.SHIPPED / f"{name}.yaml")
    with_images, without = (of_card(name, images=images).stored_bytes(1) for images in (True, False))
    assert (with_images, without) == (card.weight_bytes - card.draft_bytes, with_images - card.encoder_bytes)
    forced = of_card(name, images=False, engine_args={"language_model_only": False})
    assert forced.stored_bytes(1) == with_images


def test_experts_are_padded_on_each_gpu_of_a_split() -> None:
    shape = of_card("gpt-oss-120b").architecture
    hidden = 3072 / 2880
    assert architecture.expert_padding(shape, 1) == pytest.approx(2944 / 2880 * hidden)
    assert architecture.expert_padding(shape, 8) == pytest.approx(384 / 360 * hidden)


def test_a_model_without_images_has_no_step_of_its_encoder() -> None:
    with_images, without = (of_card("gemma-3-12b-it", images=images, max_num_seqs=8) for images in (True, False))
    assert (with_images.text_only, without.text_only) == (False, True)
    assert with_images.overhead_bytes(1) - without.overhead_bytes(1) >= overhead.VISION_KEPT_BYTES
    # Where neither the config nor a card says it, requests to the model's own name may have images.
    on_h100, card = machine.described("H100"), cards.SHIPPED / "gemma-3-12b-it.yaml"
    assert not footprint("ann", Model(weights=Path("/nowhere"), card=card), on_h100).text_only
    # Whoever says it in the flags has the last word.
    assert not of_card("gemma-3-12b-it", images=False, engine_args={"language_model_only": False}).text_only
    assert not of_card("qwen3-8b").text_only


@pytest.mark.parametrize(
    ("fields", "loads_encoder"),
    [
        ({}, True),
        ({"images": True}, True),
        ({"images": False}, False),
        ({"images": False, "engine_args": {"language_model_only": False}}, True),
        ({"engine_args": {"language-model-only": True}}, False),
    ],
)
def test_an_encoder_that_is_not_loaded_is_not_in_the_weights(
    tmp_path: Path, fields: dict[str, Any], loads_encoder: bool
) -> None:
    encoder: Shapes = {"model.vision_tower.layers.0.fc1.weight": ("BF16", (4096, 4096))}
    config = {**TINY, "vision_config": {}}
    weights = write_model(tmp_path, config, shapes={**llama_shapes(config), **encoder})
    found = footprint("ann", Model(weights=weights, max_model_len=512, **fields), machine.described("H100"))
    without = checkpoint.rank_bytes(checkpoint.without_encoders(found.tensors or []), found.architecture, 1)
    assert found.stored_bytes(1) == without + 4096 * 4096 * 2 * loads_encoder


@pytest.mark.parametrize(
    ("name", "on", "dtype", "tokens"),
    [
        ("llama-3.1-8b-instruct", "H100", "auto", 16),
        ("llama-3.1-8b-instruct", "B200", "auto", 16),
        ("deepseek-v2-lite-chat", "H100", "auto", 16),
        ("deepseek-v2-lite-chat", "H100", "fp8", 64),
        ("deepseek-v2-lite-chat", "B200", "auto", 128),
        ("gemma-4-31b-it", "H100", "auto", 16),
        ("gemma-4-31b-it", "H100", "fp8", 64),
    ],
)
def test_a_block_has_the_tokens_of_the_kernels(name: str, on: str, dtype: str, tokens: int) -> None:
    assert of_card(name, on, kv_cache_dtype=dtype).pool(1).shape.block_tokens == tokens


@pytest.mark.parametrize(
    ("on", "mib"), [("2xH100", 2900), ("2xA100-80", 1200), ("2xL40S", 512), ("2xPRO-6000", 512), ("2x80GiB", 2900)]
)
def test_a_split_costs_what_its_links_need(on: str, mib: int) -> None:
    assert overhead.split_bytes(of_card("llama-3.1-8b-instruct", on).smallest_gpu) == mib * MIB


@pytest.mark.parametrize("on", ["2xH100,L4", "L4,2xH100", "2xH100,2x24GiB"])
def test_on_gpus_of_several_kinds_there_is_room_for_what_the_largest_keeps(on: str) -> None:
    mixed, alike = of_card("llama-3.1-8b-instruct", on), of_card("llama-3.1-8b-instruct", "2xH100")
    assert [mixed.asleep_bytes(n) for n in (1, 2)] == [alike.asleep_bytes(n) for n in (1, 2)]
    assert mixed.step_tokens == of_card("llama-3.1-8b-instruct", "L4").step_tokens
    latent = of_card("deepseek-v2-lite-chat", "B200,2xH100")
    assert latent.pool(1).shape.block_tokens == 128


def test_a_model_that_is_pinned_has_the_constants_of_its_own_gpu() -> None:
    pinned, alone = of_card("qwen3-8b", "2xH100,L4", gpus=(2,)), of_card("qwen3-8b", "L4")
    assert pinned.asleep_bytes(1) == alone.asleep_bytes(1)


def test_guesses_are_sampled_too() -> None:
    plain, guessing = (of_card("qwen3-8b", max_num_seqs=256, prompt_lookup_tokens=n) for n in (None, 4))
    assert guessing.overhead_bytes(1) - guessing.graph_bytes() > plain.overhead_bytes(1) - plain.graph_bytes() + GIB


def sleepers(
    monkeypatch: pytest.MonkeyPatch,
    nodes: list[int | None],
    free_gib: float,
    of_node_gib: float,
    free_graphs: bool = False,
) -> set[str]:
    """Which of two models of 10 GiB and with graphs of 1 GiB, one on each GPU, can sleep in place."""
    memory = Device("memory", 0, 999 * GIB, int(free_gib * GIB))
    monkeypatch.setattr(machine, "own_memory", lambda: Machine([memory], gpu=False))
    monkeypatch.setattr(machine, "node_free_bytes", lambda node: int(of_node_gib * GIB))
    monkeypatch.setattr(machine, "_may_bind", lambda node: True)
    devices = [Device(f"GPU {at}", at, 80 * GIB, 80 * GIB, node) for at, node in enumerate(nodes)]
    placed = {n: SimpleNamespace(turn=0, gpus=(at,), weight_bytes=10 * GIB) for at, n in enumerate(("ann", "bob"))}
    footprints = dict.fromkeys(placed, SimpleNamespace(graph_bytes=lambda: GIB))
    plan = SimpleNamespace(placed=placed, machine=Machine(devices, gpu=True), footprints=footprints)
    local = dict.fromkeys(placed, SimpleNamespace(sleep_after_s=None))
    config = SimpleNamespace(
        local=local, model_of={n: n for n in local}, placement=Placement(sleepers_free_graphs=free_graphs)
    )
    new = SimpleNamespace(config=config, plan=plan)
    return set(builder._engines_in_sleep_mode(cast(Deployment, new)))


def test_as_many_sleep_in_place_as_main_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    # A pinned copy takes up to 1.3 times the weights, and 0.8 of the free memory may be used.
    assert sleepers(monkeypatch, [None, None], 33, 0) == {"ann", "bob"}
    assert sleepers(monkeypatch, [None, None], 31, 0) == {"ann"}
    assert sleepers(monkeypatch, [None, None], 33, 0, free_graphs=True) == {"ann"}
    assert sleepers(monkeypatch, [None, None], 36, 0, free_graphs=True) == {"ann", "bob"}


def test_a_sleeper_that_is_bound_to_a_node_needs_the_room_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert sleepers(monkeypatch, [0, 1], 99, 17) == {"ann", "bob"}
    assert sleepers(monkeypatch, [0, 1], 99, 15) == set()
