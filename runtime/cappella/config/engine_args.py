"""The flags of vLLM 0.32's server that a config may set: what they change is speed, memory, and how tokens are drawn.

A list of what is allowed, since a list of what is not leaks: vLLM's parser takes the beginning of a flag for the flag,
and every release brings new ones. Kept off are flags that Cappella sets itself, that load code or another model, that
read or write files, that open ports or connect, and that log what is asked. Each name was looked at in vLLM 0.32.
"""

ALLOWED = frozenset(
    # The model, as its weights say, and how tokens are drawn.
    "seed quantization quantization_config max_logprobs logprobs_mode use_fp64_gumbel disable_sliding_window"
    " disable_cascade_attn generation_config override_generation_config tokenizer_mode hf_overrides runner convert"
    " pooler_config chat_template model_impl default_chat_template_kwargs chat_template_content_format exclude_tools_when_tool_choice_none"
    " tool_strict_level cohere_is_reasoning_model cohere_format reasoning_config"
    # Its kernels.
    " attention_backend attention_config mamba_backend mamba_ssu_algorithm enable_mamba_cache_stochastic_rounding"
    " mamba_cache_philox_rounds gdn_prefill_backend kda_prefill_backend kda_decode_backend moe_backend linear_backend"
    " sparse_indexer_topk_backend enable_flashinfer_autotune kernel_config ir_op_priority compilation_config"
    " cudagraph_capture_sizes max_cudagraph_capture_size optimization_level performance_mode"
    # Its KV cache.
    " block_size num_gpu_blocks_override enable_prefix_caching prefix_caching_hash_algo prefix_cache_retention_interval"
    " kv_cache_dtype_skip_layers kv_sharing_fast_prefill swa_bounded_replay mamba_cache_dtype mamba_ssm_cache_dtype"
    " mamba_block_size prefix_match_unit mamba_cache_mode enable_mamba_shared_prefix_checkpoint replayssm_buffer_len"
    " use_replayssm disable_hybrid_kv_cache_manager"
    # What lies in this machine's memory.
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
    # LoRA adapters, beside their names and number.
    " lora_dtype max_cpu_loras fully_sharded_loras lora_target_modules specialize_active_lora"
    # The order of work.
    " max_num_batched_tokens max_num_scheduled_tokens long_prefill_token_threshold long_prefill_token_threshold_adaptive"
    " scheduling_policy enable_chunked_prefill disable_chunked_mm_input scheduler_reserve_full_isl watermark"
    " prefill_schedule_interval async_scheduling stream_interval renderer_num_workers speculative_config"
    # Its figures.
    " disable_log_stats kv_cache_metrics kv_cache_metrics_sample cudagraph_metrics enable_mfu_metrics".split()
)


def normal(name: str) -> str:
    """A flag's name in one spelling."""
    return name.replace("-", "_")
