"""KV cache sizes, compared with published figures; test_real_placement.py compares them with vLLM."""

from collections.abc import Mapping
from typing import Any

import pytest

from cappella.errors import ConfigError
from cappella.placement import architecture, kv_cache
from cappella.placement.architecture import Attention, Latent, Recurrent
from cappella.placement.kv_cache import CacheShape

LLAMA_8B = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "dtype": "bfloat16",
}
GEMMA_27B = {
    "architectures": ["Gemma3ForConditionalGeneration"],
    "dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text",
        "hidden_size": 5376,
        "intermediate_size": 21504,
        "num_hidden_layers": 62,
        "num_attention_heads": 32,
        "num_key_value_heads": 16,
        "head_dim": 128,
        "sliding_window": 1024,
        "sliding_window_pattern": 6,
        "vocab_size": 262208,
    },
}
DEEPSEEK_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 64,
    "num_experts_per_tok": 6,
    "n_shared_experts": 2,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "kv_lora_rank": 512,
    "qk_rope_head_dim": 64,
    "qk_nope_head_dim": 128,
    "v_head_dim": 128,
    "vocab_size": 102400,
    "torch_dtype": "bfloat16",
}
QWEN_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"],
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "num_hidden_layers": 48,
    "num_attention_heads": 16,
    "num_key_value_heads": 2,
    "head_dim": 256,
    "full_attention_interval": 4,
    "linear_num_key_heads": 16,
    "linear_num_value_heads": 32,
    "linear_key_head_dim": 128,
    "linear_value_head_dim": 128,
    "linear_conv_kernel_dim": 4,
    "vocab_size": 151936,
    "dtype": "bfloat16",
}
ONE_GPU = CacheShape(value_bytes=2, block_tokens=16, gpus=1, step_tokens=2048)


def sequence(config: Mapping[str, Any], tokens: int, shape: CacheShape = ONE_GPU) -> int:
    return kv_cache.pool(architecture.read(config, "config.json"), shape).sequence_bytes(tokens)


def test_a_llama_of_8b_keeps_128_kib_a_token() -> None:
    assert sequence(LLAMA_8B, 8192) == 8192 * 128 * 1024


def test_a_cache_in_fp8_takes_half() -> None:
    assert sequence(LLAMA_8B, 4096, CacheShape(1, 16, 1, 2048)) == sequence(LLAMA_8B, 4096) // 2


def test_a_part_of_a_block_takes_a_whole_one() -> None:
    assert sequence(LLAMA_8B, 17) == sequence(LLAMA_8B, 32)


@pytest.mark.parametrize(("gpus", "share"), [(2, 2), (4, 4), (8, 8), (16, 8)])
def test_heads_are_shared_out_and_copied_where_there_are_too_few(gpus: int, share: int) -> None:
    assert sequence(LLAMA_8B, 4096, CacheShape(2, 16, gpus, 2048)) == sequence(LLAMA_8B, 4096) // share


def test_latent_attention_keeps_576_values_a_layer_whole_on_every_gpu() -> None:
    assert architecture.read(DEEPSEEK_LITE, "c").layers == {Latent(576): 27}
    assert sequence(DEEPSEEK_LITE, 1600) == 27 * 576 * 2 * 1600
    assert sequence(DEEPSEEK_LITE, 1600, CacheShape(2, 16, 4, 2048)) == sequence(DEEPSEEK_LITE, 1600)


def test_of_a_sliding_window_only_the_window_and_a_step_are_kept() -> None:
    assert architecture.read(GEMMA_27B, "c").layers == {Attention(16, 128, window=1024): 52, Attention(16, 128): 10}
    per_layer_block = 16 * 2 * 16 * 128 * 2
    # One step may run and another be scheduled while the window moves on.
    window_blocks = -(-(1023 + 2 * 2048) // 16) + 1
    # Ten layers to a group: one group of full attention, and six of windows, the last with eight empty places.
    assert sequence(GEMMA_27B, 32768) == 10 * per_layer_block * (32768 // 16 + 6 * window_blocks)


def test_gemma_3_is_read_as_it_is_published() -> None:
    published = {"model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
                 "sliding_window": 1024}  # fmt: skip
    read = architecture.read({"text_config": published, "vision_config": {}, "torch_dtype": "bfloat16"}, "c")
    assert read.layers == {Attention(4, 256, window=1024): 29, Attention(4, 256): 5}
    assert (read.vocab_size, read.tied, read.vision) == (262208, True, True)


def test_layers_that_share_a_cache_keep_nothing() -> None:
    shared = {**LLAMA_8B, "num_kv_shared_layers": 12}
    assert sum(architecture.read(shared, "c").layers.values()) == 20


def test_linear_attention_keeps_two_states_in_pages_as_large_as_attentions() -> None:
    read = architecture.read(QWEN_NEXT, "c")
    # Qwen3-Next on one GPU, by vLLM's own alignment: blocks of 544 tokens.
    state_bytes = 32 * 128 * 128 * 2 + (2 * 2048 + 4096) * 3 * 2
    assert read.layers == {Recurrent(state_bytes, copies=2): 36, Attention(2, 256): 12}
    assert sequence(QWEN_NEXT, 32768) == 12 * 544 * 2048 * (-(-32768 // 544) + 3 * 2)


def test_a_model_with_states_needs_a_block_for_every_sequence_that_may_run() -> None:
    pool = kv_cache.pool(architecture.read(QWEN_NEXT, "c"), ONE_GPU)
    assert pool.min_bytes(1000, max_num_seqs=256) == 257 * pool.block_bytes
    assert pool.min_bytes(1000, max_num_seqs=4) == pool.sequence_bytes(1000) + pool.block_bytes


def test_vllm_needs_one_block_more_than_the_longest_sequence() -> None:
    pool = kv_cache.pool(architecture.read(LLAMA_8B, "c"), ONE_GPU)
    assert pool.min_bytes(8192, max_num_seqs=64) == (8192 + 16) * 128 * 1024


def test_a_longer_sequence_never_takes_less() -> None:
    for config in (LLAMA_8B, GEMMA_27B, DEEPSEEK_LITE, QWEN_NEXT):
        sizes = [sequence(config, tokens) for tokens in range(1, 20000, 777)]
        assert sizes == sorted(sizes)


def test_a_config_that_lacks_a_size_is_named() -> None:
    config = {key: value for key, value in LLAMA_8B.items() if key != "vocab_size"}
    with pytest.raises(ConfigError, match=r"^here: config\.json lacks 'vocab_size'"):
        architecture.read(config, "here")


def test_a_layer_of_an_unknown_kind_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown kinds of layers: moving_attention"):
        architecture.read({**LLAMA_8B, "layer_types": ["full_attention", "moving_attention"]}, "here")


@pytest.mark.parametrize(("gpus", "legal"), [(1, True), (2, True), (4, True), (8, True), (16, True), (64, False)])
def test_a_split_shares_out_heads_and_feed_forward_sizes(gpus: int, legal: bool) -> None:
    assert architecture.legal_split(architecture.read(LLAMA_8B, "c"), gpus) is legal


def test_groups_of_quantised_weights_are_not_cut() -> None:
    quantised = {
        **LLAMA_8B,
        "intermediate_size": 18944,
        "quantization_config": {"quant_method": "awq", "group_size": 128},
    }
    read = architecture.read(quantised, "c")
    assert 18944 % 8 == 0
    assert architecture.legal_split(read, 4)
    assert not architecture.legal_split(read, 8)


def test_float32_weights_are_served_as_bfloat16() -> None:
    assert architecture.read({**LLAMA_8B, "dtype": "float32"}, "c").dtype == "bfloat16"
