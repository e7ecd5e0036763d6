"""The flags of vLLM's server that `engine_args` accepts, and the hints for those that it refuses."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cappella.config.load import load
from cappella.errors import ConfigError
from support.config_file import write_config

GOOD = """\
models:
  ann: {weights: w/ann, max_model_len: 64, kv_cache_bytes: 1MiB}
ensembles:
  default: {panel: [ann], judge: ann}
"""


NEVER = (
    # Cappella sets these itself.
    "model served_model_name uds host port api_key load_format max_model_len max_num_seqs dtype kv_cache_memory_bytes"
    " kv_cache_dtype tensor_parallel_size pipeline_parallel_size data_parallel_size gpu_memory_utilization enable_lora"
    " lora_modules max_loras max_lora_rank enable_auto_tool_choice tool_call_parser reasoning_parser"
    # These load code, another model or another config.
    " trust_remote_code config tokenizer hf_config_path revision middleware worker_cls worker_extension_cls scheduler_cls"
    " logits_processors tool_parser_plugin reasoning_parser_plugin io_processor_plugin model_class_overrides"
    " distributed_executor_backend trust_request_chat_template additional_config"
    # These open ports or connections, or log prompts.
    " otlp_traces_endpoint allowed_local_media_path allowed_media_domains kv_transfer_config kv_events_config"
    " ec_transfer_config weight_transfer_config master_addr tool_server ssl_keyfile log_config_file download_dir hf_token"
    " enable_log_requests enable_log_outputs profiler_config grpc headless"
    # vLLM's parser accepts abbreviated flags, and dots for nested values.
    " trust_remote_cod trust mod hos config. speculative_config.model no_enable_prefix_caching x --seed seed=1".split()
)


@pytest.mark.parametrize("key", NEVER)
@pytest.mark.parametrize("spell", [str, lambda key: key.replace("_", "-")], ids=["underscores", "dashes"])
def test_engine_args_accept_only_listed_flags(tmp_path: Path, key: str, spell: Callable[[str], str]) -> None:
    text = GOOD.replace("1MiB}", f"1MiB, engine_args: {{'{spell(key)}': 1}}}}", 1)
    with pytest.raises(ConfigError, match=rf"c\.yaml:2: models\.ann\.engine_args\.{re.escape(spell(key))}: "):
        load(write_config(tmp_path, text))


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        ("max-model-len", "Use the config key max_model_len instead"),
        ("gpu_memory_utilization", "Use the config key kv_cache_bytes or placement.memory_bytes instead"),
        ("max_num_batched_token", "Did you mean max_num_batched_tokens?"),
        ("trust_remote_code", "Remove it, or use a flag that cappella/config/engine_args.py lists"),
    ],
)
def test_a_refused_engine_arg_has_a_hint(tmp_path: Path, flag: str, hint: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(write_config(tmp_path, GOOD.replace("1MiB}", f"1MiB, engine_args: {{{flag}: 1}}}}", 1)))
    assert raised.value.hint == hint


def test_engine_args_accept_listed_flags_in_both_spellings(tmp_path: Path) -> None:
    text = GOOD.replace("1MiB}", "1MiB, engine_args: {async_scheduling: true, max-num-batched-tokens: 64}}", 1)
    assert len(load(write_config(tmp_path, text)).local["ann"].engine_args) == 2
