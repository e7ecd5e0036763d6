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
    set, vLLM splits groups of experts' weights that share a scale into groups of at most this size.
    """

    method: str | None = None
    expert_multiples: tuple[int, int] = (1, 1)
    max_expert_group: int | None = None
    max_captured_tokens: int = MAX_CAPTURED_TOKENS

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
        Quantisation("mxfp4", expert_multiples=(128, 256), max_captured_tokens=1024),
        Quantisation("fp8", max_expert_group=32),
    )
}
VARIANTS = (("fp8", 0.51), ("4 bits (AWQ or GPTQ)", 0.29))
"""Quantised variants to suggest when a plan does not fit, with their share of the size in 16 bits, scales included."""


def of(settings: Mapping[str, Any]) -> Quantisation:
    """The method of a `quantization_config`, which is empty for weights that are not quantised."""
    method = settings.get("quant_method")
    return METHODS.get(method, Quantisation(method))
