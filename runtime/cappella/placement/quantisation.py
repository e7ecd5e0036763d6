"""What a plan must know of each way to quantise weights: one table, one entry per method.

A method without an entry is planned from the sizes in its files alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil
from typing import Any

MAX_CAPTURED_TOKENS = 512
"""Tokens of the largest batch that vLLM captures as a CUDA graph."""


@dataclass(frozen=True, slots=True)
class Quantisation:
    """One method. `method` is the `quant_method` of config.json, None for weights that are not quantised.

    Kernels pad the inner and hidden sizes of experts to multiples of `expert_multiples`. Where `max_expert_group` is
    set, vLLM splits groups of experts' weights that share a scale into groups of at most this size. A GPU below
    `least_capability` has no kernels for it (vLLM 0.32: `get_min_capability`).
    """

    method: str | None = None
    expert_multiples: tuple[int, int] = (1, 1)
    max_expert_group: int | None = None
    max_captured_tokens: int = MAX_CAPTURED_TOKENS
    least_capability: tuple[int, int] = (7, 5)

    def expert_padding(self, inner_size: int, hidden_size: int) -> float:
        """The factor by which experts grow in memory when their sizes are padded."""
        inner, hidden = self.expert_multiples
        if self.expert_multiples == (1, 1) or not inner_size:
            return 1.0
        return ceil(inner_size / inner) * inner / inner_size * (ceil(hidden_size / hidden) * hidden / hidden_size)

    def expert_group(self, group: int) -> int:
        """Values of an expert's weights that share a scale, where those of other weights come in groups of `group`."""
        return group if self.max_expert_group is None else min(group, self.max_expert_group)


METHODS: Mapping[str | None, Quantisation] = {
    each.method: each
    for each in (
        # Marlin's kernels pad the experts (vLLM: `oracle/mxfp4.py`); the only such models are gpt-oss, for which vLLM
        # captures larger batches.
        Quantisation("mxfp4", expert_multiples=(128, 256), max_captured_tokens=1024, least_capability=(8, 0)),
        Quantisation("fp8", max_expert_group=32),
        *(Quantisation(method, least_capability=(8, 0)) for method in ("modelopt", "fbgemm_fp8", "experts_int8")),
        Quantisation("fp_quant", least_capability=(10, 0)),
    )
}
FOUR_BITS_SHARE = 0.29
"""The size of weights in 4 bits as a share of that in 16 bits, with scales, and embeddings in 16 bits."""
FP8_CACHE_CAPABILITY = (8, 9)
"""No attention kernel of vLLM 0.32 reads a KV cache in fp8 on older GPUs."""
FP8_ON_LOAD = "fp8_per_tensor"
"""The value of `quantization` with which vLLM 0.32 quantises 16-bit weights while it loads them; `fp8` it refuses."""
ON_LOAD: Mapping[str, float] = {FP8_ON_LOAD: 0.5, "fp8_per_channel": 0.5, "fp8_per_block": 0.51, "mxfp8": 0.52}
"""Such values, with the share that layers other than embeddings keep of their size in 16 bits."""

OF_FILES = frozenset("fp8 awq awq_marlin auto_awq gptq gptq_marlin auto_gptq compressed-tensors modelopt".split())
"""Values of `quantization` for weights that are stored so."""


def of(settings: Mapping[str, Any]) -> Quantisation:
    """The method of a `quantization_config`, which is empty for weights that are not quantised."""
    method = settings.get("quant_method")
    return METHODS.get(method, Quantisation(method))
