"""What a config may say of one model."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ByteSize, Field, model_validator

from cappella.config.fields import Name
from cappella.config.options import Seconds
from cappella.types import Capabilities, Frozen

# Set by Cappella itself, or able to open the seal: never taken from a config.
RESERVED_ENGINE_ARGS = frozenset(
    "model served_model_name uds host port api_key trust_remote_code load_format max_model_len max_num_seqs dtype"
    " kv_cache_memory_bytes kv_cache_dtype tensor_parallel_size pipeline_parallel_size data_parallel_size"
    " gpu_memory_utilization otlp_traces_endpoint allowed_local_media_path allowed_media_domains"
    " enable_lora lora_modules max_loras max_lora_rank enable_auto_tool_choice tool_call_parser reasoning_parser tool_parser_plugin".split()
)


class Model(Frozen):
    """One set of weights and how its engine serves it.

    The parsers are vLLM's, by name: a model takes tools, or an effort to reason with, only if it has the parser. With
    `prompt_lookup_tokens` it guesses so many tokens ahead, by what followed the same words before: a judge copies much.
    What is None is the plan's to choose. `card` is a file of model_configs/models: what is known of these weights.
    An engine from which for `hung_after_s` no token and no step came, though asked for one, is ended and starts anew.
    `adapters` are LoRA adapters by name, each called as a model of its own: one engine serves them with its weights.
    """

    weights: Path
    card: Path | None = None
    max_model_len: Annotated[int, Field(ge=16)]
    kv_cache_bytes: Annotated[ByteSize, Field(ge=1 << 20)] | None = None
    kv_cache_dtype: Literal["auto", "fp8"] = "auto"
    gpus: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] | None = None
    tensor_parallel_size: Literal[1, 2, 4, 8, 16] | None = None
    max_num_seqs: Annotated[int, Field(ge=1)] = 64
    dtype: str = "auto"
    enforce_eager: bool = False
    hung_after_s: Seconds = 60.0
    cpu_threads: Annotated[int, Field(ge=1)] | None = None
    tool_parser: str | None = None
    reasoning_parser: str | None = None
    images: bool = False
    prompt_lookup_tokens: Annotated[int, Field(ge=1, le=32)] | None = None
    adapters: Mapping[Name, Path] = {}
    engine_args: Mapping[str, bool | int | float | str | Mapping[str, Any]] = {}

    @model_validator(mode="after")
    def _no_reserved_engine_args(self) -> "Model":
        if self.gpus and len(set(self.gpus)) < len(self.gpus):
            raise ValueError(f"gpus names one twice: {', '.join(map(str, self.gpus))}")
        if self.gpus and self.tensor_parallel_size not in (None, len(self.gpus)):
            raise ValueError(f"gpus names {len(self.gpus)} and tensor_parallel_size {self.tensor_parallel_size}")
        for name in self.engine_args:
            if name.replace("-", "_") in RESERVED_ENGINE_ARGS:
                raise ValueError(f"engine_args may not set {name!r}: Cappella sets it or keeps it off")
            if name.replace("-", "_") == "speculative_config" and self.prompt_lookup_tokens is not None:
                raise ValueError("prompt_lookup_tokens and speculative_config say the same thing: set one of them")
        return self

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            tools=self.tool_parser is not None, images=self.images, reasoning=self.reasoning_parser is not None
        )
