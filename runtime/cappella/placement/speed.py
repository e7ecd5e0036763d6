"""How fast an engine is on named GPUs: an estimate from what a token reads of the weights and the KV cache.

A card that generates one token reads all weights that are active for it and the sequence's KV cache; a card that reads a
prompt multiplies. Llama-3.1-8B in bfloat16 on an A100 of 40 GB gave 75 tokens/s to one request of 1,024 tokens with vLLM
0.23 (johnmusgrave.com, "vLLM throughput-latency sweep on NVIDIA A100"); by these constants it gives 72.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cappella.placement.architecture import DTYPE_BYTES, Architecture
from cappella.placement.footprint import Footprint
from cappella.placement.machine import Device

READ_SHARE = 0.8
"""The share of the data sheet's bandwidth that engines reach while they generate; a plain copy on our H100 reached 0.89."""
MULTIPLY_SHARE = 0.5
"""The share of the data sheet's matrix products that they reach in a prompt."""
STEP_S = 0.001
"""What a step takes beside the reading: starting kernels, sampling, scheduling."""
REDUCE_S = 10e-6
"""A sum over the GPUs of a split, two of which a layer needs; over NVLink."""


@dataclass(frozen=True, slots=True)
class Speed:
    """What one engine does on its GPUs, while it has them to itself."""

    footprint: Footprint
    gpus: int
    bytes_per_s: float
    flops: float

    def step_s(self, sequences: int, tokens: int) -> float:
        """The next token of each of so many sequences of this length."""
        cached = sequences * self.footprint.read_bytes(self.gpus, tokens)
        reading = (_read_weight_bytes(self.footprint, sequences) / self.gpus + cached) / (self.bytes_per_s * READ_SHARE)
        sums = 2 * self.footprint.architecture.depth * REDUCE_S * (self.gpus > 1)
        return STEP_S + reading + sums

    def prompt_s(self, tokens: int) -> float:
        """Reading a prompt of this length."""
        values = _active_values(self.footprint.architecture)
        return STEP_S + 2 * values * tokens / (self.gpus * self.flops * MULTIPLY_SHARE)


def speed(footprint: Footprint, devices: Sequence[Device]) -> Speed | None:
    """None where the speed of a GPU is not known."""
    kinds = [device.kind for device in devices if device.kind]
    if len(kinds) < len(devices):
        return None
    slowest = min(kinds, key=lambda kind: kind.bytes_per_s)
    return Speed(footprint, len(devices), slowest.bytes_per_s, min(kind.flops for kind in kinds))


def _read_weight_bytes(footprint: Footprint, sequences: int) -> float:
    """What a step over so many sequences reads of the weights: of experts those that are chosen, of embeddings nothing."""
    shape, total = footprint.architecture, footprint.stored_bytes(1)
    embedding = 0 if shape.tied else DTYPE_BYTES[shape.dtype] * shape.vocab_size * shape.hidden_size
    if not shape.experts:
        return total - embedding
    # mxfp4 has only the experts in 4 bits.
    by_value = total / (_expert_values(shape) + _dense_values(shape))
    value_bytes = 2.0 if shape.quantisation.method == "mxfp4" else by_value
    dense = min(total, value_bytes * _dense_values(shape) + embedding)
    return dense - embedding + (total - dense) * _chosen_share(shape, sequences)


def _active_values(architecture: Architecture) -> float:
    """The weights that a token is multiplied with."""
    return _dense_values(architecture) + _expert_values(architecture) * _chosen_share(architecture, 1)


def _dense_values(shape: Architecture) -> int:
    """Attention as four square matrices a layer, which is more than grouped heads have; and the vocabulary."""
    layer = 4 * shape.hidden_size**2 + 3 * shape.hidden_size * shape.inner_size
    return shape.depth * layer + shape.vocab_size * shape.hidden_size


def _expert_values(shape: Architecture) -> int:
    return shape.depth * shape.experts * 3 * shape.hidden_size * shape.expert_inner_size


def _chosen_share(shape: Architecture, sequences: int) -> float:
    """The share of the experts that so many tokens choose, if they choose independently."""
    return 1 - (1 - shape.experts_per_token / shape.experts) ** sequences if shape.experts else 0.0
