"""The flags of vLLM 0.32's server that `engine_args` may set: those for speed, memory and sampling.

An allow-list, because a deny-list leaks: vLLM's parser accepts abbreviated flags, and every release adds new ones.
Refused are flags that Cappella sets itself, load code or another model, read or write files, open ports or
connections, or log prompts. Each name was checked in vLLM 0.32.
"""

from difflib import get_close_matches
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

ALLOWED = frozenset(
    # The model, and sampling.
    "seed quantization quantization_config max_logprobs logprobs_mode use_fp64_gumbel disable_sliding_window"
    " disable_cascade_attn generation_config override_generation_config tokenizer_mode hf_overrides runner convert"
    " pooler_config chat_template model_impl default_chat_template_kwargs chat_template_content_format exclude_tools_when_tool_choice_none"
    " tool_strict_level cohere_is_reasoning_model cohere_format reasoning_config"
    # Kernels.
    " attention_backend attention_config mamba_backend mamba_ssu_algorithm enable_mamba_cache_stochastic_rounding"
    " mamba_cache_philox_rounds gdn_prefill_backend kda_prefill_backend kda_decode_backend moe_backend linear_backend"
    " sparse_indexer_topk_backend enable_flashinfer_autotune kernel_config ir_op_priority compilation_config"
    " cudagraph_capture_sizes max_cudagraph_capture_size optimization_level performance_mode"
    # KV cache.
    " block_size num_gpu_blocks_override enable_prefix_caching prefix_caching_hash_algo prefix_cache_retention_interval"
    " kv_cache_dtype_skip_layers kv_sharing_fast_prefill swa_bounded_replay mamba_cache_dtype mamba_ssm_cache_dtype"
    " mamba_block_size prefix_match_unit mamba_cache_mode enable_mamba_shared_prefix_checkpoint replayssm_buffer_len"
    " use_replayssm disable_hybrid_kv_cache_manager"
    # Offloading to this machine's memory.
    " offload_backend cpu_offload_gb cpu_offload_params offload_group_size offload_num_in_group offload_prefetch_step"
    " offload_params kv_offloading_size safetensors_load_strategy safetensors_prefetch_num_threads"
    " safetensors_prefetch_block_size use_tqdm_on_load"
    # Several GPUs of this machine.
    " decode_context_parallel_size prefill_context_parallel_size dcp_comm_backend dcp_q_replicate"
    " dcp_kv_cache_interleave_size cp_kv_cache_interleave_size enable_expert_parallel enable_ep_weight_filter"
    " all2all_backend enable_dbo ubatch_size dbo_decode_token_threshold dbo_prefill_token_threshold enable_eplb"
    " eplb_config expert_placement_strategy disable_custom_all_reduce max_parallel_loading_workers"
    # Images and other media.
    " language_model_only limit_mm_per_prompt mm_processor_kwargs mm_processor_cache_gb mm_processor_cache_type"
    " mm_shm_cache_max_object_size_mb mm_encoder_only mm_encoder_tp_mode mm_encoder_attn_backend"
    " mm_encoder_attn_dtype interleave_mm_strings skip_mm_profiling video_pruning_rate video_pruning_method"
    # LoRA adapters, apart from their names and number.
    " lora_dtype max_cpu_loras fully_sharded_loras lora_target_modules specialize_active_lora"
    # Scheduling.
    " max_num_batched_tokens max_num_scheduled_tokens long_prefill_token_threshold long_prefill_token_threshold_adaptive"
    " scheduling_policy enable_chunked_prefill disable_chunked_mm_input scheduler_reserve_full_isl watermark"
    " prefill_schedule_interval async_scheduling stream_interval renderer_num_workers speculative_config"
    # Statistics.
    " disable_log_stats kv_cache_metrics kv_cache_metrics_sample cudagraph_metrics enable_mfu_metrics".split()
)


KEYS_INSTEAD = {
    **{name: name for name in ("max_model_len", "max_num_seqs", "dtype", "kv_cache_dtype", "enforce_eager")},
    **dict.fromkeys(("tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size"), "tensor_parallel_size"),
    **dict.fromkeys(("tool_call_parser", "enable_auto_tool_choice"), "tool_parser"),
    **dict.fromkeys(("enable_lora", "lora_modules", "max_loras", "max_lora_rank"), "adapters"),
    **dict.fromkeys(("uds", "host", "port"), "server.host and server.port"),
    **dict.fromkeys(("ssl_keyfile", "ssl_certfile", "ssl_ca_certs"), "server.tls"),
    **dict.fromkeys(("enable_log_requests", "enable_log_outputs"), "server.audit or server.runs"),
    "reasoning_parser": "reasoning_parser",
    "kv_cache_memory_bytes": "kv_cache_bytes",
    "gpu_memory_utilization": "kv_cache_bytes or placement.memory_bytes",
    "model": "weights",
    "api_key": "server.keys",
    "allowed_local_media_path": "server.image_folder",
    "otlp_traces_endpoint": "server.tracing",
}
"""Refused flags whose effect a config key has: a key of the model, or of the section that is named."""


def canonical(name: str) -> str:
    """A flag's name in one spelling."""
    return name.replace("-", "_")


def _allowed(name: str) -> str:
    if canonical(name) in ALLOWED:
        return name
    problem, hint = _refusal(name)
    raise PydanticCustomError("engine_arg", "{problem}", {"problem": problem, "hint": hint})


def _refusal(name: str) -> tuple[str, str]:
    """Why a flag is refused, and what to do instead."""
    problem = f"engine_args may not set {name!r}"
    if instead := KEYS_INSTEAD.get(canonical(name)):
        return f"{problem}: Cappella sets this flag itself", f"Use the config key {instead} instead"
    if close := get_close_matches(canonical(name), sorted(ALLOWED), n=1, cutoff=0.8):
        return f"{problem}: it is not the full name of an allowed flag", f"Did you mean {close[0]}?"
    why = "flags that load code or another model, read or write files, open connections or log prompts are refused"
    return f"{problem}: {why}", "Remove it, or use a flag that cappella/config/engine_args.py lists"


EngineArg = Annotated[str, AfterValidator(_allowed)]
"""The name of an allowed flag, with dashes or underscores."""
