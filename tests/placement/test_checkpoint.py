"""Sizes of weights from safetensors headers."""

from pathlib import Path

import pytest

from cappella.errors import ConfigError
from cappella.placement import architecture, checkpoint
from support.weights_folder import TINY, Shapes, llama_shapes, write_safetensors

READ = architecture.read(TINY, "c")


def weigh(tmp_path: Path, shapes: Shapes, gpus: int = 1, **config: object) -> int:
    write_safetensors(tmp_path / "model.safetensors", shapes)
    read = architecture.read({**TINY, **config}, "c")
    return checkpoint.rank_bytes(checkpoint.tensors(tmp_path, "here"), read, gpus)


def test_whole_weights_are_the_bytes_of_all_files(tmp_path: Path) -> None:
    write_safetensors(tmp_path / "a.safetensors", {"model.norm.weight": ("BF16", (64,))})
    write_safetensors(tmp_path / "b.safetensors", {"lm_head.weight": ("BF16", (128, 64))})
    found = checkpoint.tensors(tmp_path, "here")
    assert checkpoint.rank_bytes(found, READ, 1) == 64 * 2 + 128 * 64 * 2


def test_weights_present_twice_are_counted_by_the_index(tmp_path: Path) -> None:
    shapes: Shapes = {"model.norm.weight": ("BF16", (64,))}
    write_safetensors(tmp_path / "model-1.safetensors", shapes)
    write_safetensors(tmp_path / "consolidated.safetensors", shapes)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"model.norm.weight": "model-1.safetensors"}}')
    assert len(checkpoint.tensors(tmp_path, "here")) == 1
    index.write_text('{"weight_map": {"model.norm.weight": "model-2.safetensors"}}')
    with pytest.raises(ConfigError, match=r"names model-2\.safetensors, which is missing"):
        checkpoint.tensors(tmp_path, "here")


def test_a_split_shares_matrices_and_copies_norms(tmp_path: Path) -> None:
    shapes = llama_shapes(TINY)
    norms = sum(shape[0] * 2 for _, shape in shapes.values() if len(shape) == 1)
    whole = weigh(tmp_path, shapes)
    assert weigh(tmp_path, shapes, 2) == norms + (whole - norms) // 2


def test_two_heads_of_keys_are_copied_over_four_gpus(tmp_path: Path) -> None:
    shapes = {"model.layers.0.self_attn.k_proj.weight": ("BF16", (32, 64))}
    assert weigh(tmp_path, shapes, 4) == 32 * 64 * 2 // 2


def test_a_head_that_is_tied_is_not_loaded_twice(tmp_path: Path) -> None:
    shapes = dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), ("BF16", (128, 64)))
    assert weigh(tmp_path, shapes, tie_word_embeddings=True) == 128 * 64 * 2


def test_a_draft_model_beyond_the_last_layer_is_not_loaded(tmp_path: Path) -> None:
    shapes = {f"model.layers.{n}.mlp.up_proj.weight": ("BF16", (192, 64)) for n in (1, 2)}
    assert weigh(tmp_path, shapes) == 192 * 64 * 2


@pytest.mark.parametrize(
    ("name", "is_loaded"),
    [
        ("model.vision_tower.encoder.layers.0.mlp.fc1.weight", False),
        ("vision_model.model.layers.0.mlp.fc1.weight", False),
        ("model.visual.blocks.0.mlp.fc1.weight", False),
        ("multi_modal_projector.linear_1.weight", False),
        ("model.embed_vision.embedding_projection.weight", False),
        ("thinker.audio_tower.layers.0.fc1.weight", False),
        ("model.language_model.layers.0.mlp.up_proj.weight", True),
        ("model.layers.0.mlp.vision_mlp.up_proj.weight", True),
    ],
)
def test_the_language_model_alone_has_no_encoders(tmp_path: Path, name: str, is_loaded: bool) -> None:
    write_safetensors(tmp_path / "model.safetensors", {name: ("BF16", (192, 64))})
    found = checkpoint.tensors(tmp_path, "here")
    assert [each.name for each in checkpoint.without_encoders(found)] == [name] * is_loaded


def test_float32_is_loaded_as_16_bits_and_scales_stay(tmp_path: Path) -> None:
    shapes = {"model.layers.0.mlp.up_proj.weight": ("F32", (192, 64)), "x.weight_scale_inv": ("F32", (2, 2))}
    assert weigh(tmp_path, shapes) == 192 * 64 * 2 + 16


def test_mxfp4_experts_are_padded_for_their_kernels(tmp_path: Path) -> None:
    oss = {"hidden_size": 2880, "intermediate_size": 2880, "num_local_experts": 32, "num_experts_per_tok": 4}
    shapes = {"model.layers.0.mlp.experts.down_proj_blocks": ("U8", (32, 2880, 90, 16))}
    padded = weigh(tmp_path, shapes, **oss, quantization_config={"quant_method": "mxfp4"})
    assert padded == round(32 * 2880 * 90 * 16 * (2944 / 2880) * (3072 / 2880))


def test_quantised_weights_keep_their_size(tmp_path: Path) -> None:
    assert weigh(tmp_path, {"model.layers.0.mlp.up_proj.qweight": ("I32", (64, 24))}) == 64 * 24 * 4


@pytest.mark.parametrize("keep", [0, 5, 40, -1])
def test_a_file_that_is_cut_off_is_named(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, llama_shapes(TINY))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ConfigError, match=r"here: model\.safetensors is not a complete safetensors file"):
        checkpoint.tensors(tmp_path, "here")


def test_a_file_that_is_something_else_is_not_read_whole(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(ConfigError, match="a header of"):
        checkpoint.tensors(tmp_path, "here")
