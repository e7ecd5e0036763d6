"""KV cache of one sequence in bytes, by the rules of vLLM's block pool.

All layers share one pool of equal blocks. Layers of one kind form groups of equal size, and a sequence takes for each
group the number of blocks that the kind needs (vLLM: `_get_kv_cache_groups_uniform_page_size`, `max_memory_usage_bytes`).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil

from cappella.placement.architecture import Architecture, Attention, Latent, Layer, Recurrent

STEPS_IN_FLIGHT = 2
"""The scheduler is one step ahead of the GPU: blocks that leave a window are freed after both steps."""


@dataclass(frozen=True, slots=True)
class CacheShape:
    """Bytes per value, tokens per block, GPUs of the split, and tokens per scheduler step of an engine."""

    value_bytes: int
    block_tokens: int
    gpus: int
    step_tokens: int


@dataclass(frozen=True, slots=True)
class Pool:
    """A pool of blocks of `block_bytes` on each GPU: per kind of layer, its number of groups and the tokens of a page."""

    block_bytes: int
    groups: Mapping[Layer, int]
    pages: Mapping[Layer, int]
    shape: CacheShape

    def sequence_bytes(self, tokens: int) -> int:
        """Maximum bytes on each GPU of a sequence of this many tokens."""
        return self.block_bytes * sum(count * self._blocks(layer, tokens) for layer, count in self.groups.items())

    def min_bytes(self, tokens: int, max_num_seqs: int) -> int:
        """The minimum with which vLLM starts: one such sequence and an empty block.

        A model with recurrent states also needs a block for each concurrent sequence.
        """
        states = max_num_seqs if any(isinstance(layer, Recurrent) for layer in self.groups) else 0
        return max(self.sequence_bytes(tokens), self.block_bytes * states) + self.block_bytes

    def _blocks(self, layer: Layer, tokens: int) -> int:
        block = self.pages[layer]
        match layer:
            case Attention(window=int(window)):
                return ceil(min(window - 1 + STEPS_IN_FLIGHT * self.shape.step_tokens, tokens) / block) + 1
            case Recurrent(copies=copies):
                return copies
            case _:
                return ceil(tokens / block)


def pool(architecture: Architecture, shape: CacheShape) -> Pool:
    """The pool for a model's layers; without any that keep something, its blocks have no bytes."""
    if not architecture.layers:
        return Pool(0, {}, {}, shape)
    page_bytes, pages = _unified(architecture.layers, shape)
    counts = architecture.layers.values()
    size = max(counts) if max(counts) < 1.5 * min(counts) else min(counts)
    groups = {layer: ceil(count / size) for layer, count in architecture.layers.items()}
    return Pool(size * page_bytes, groups, pages, shape)


def read_bytes(architecture: Architecture, shape: CacheShape, tokens: int) -> int:
    """What each GPU reads of the cache to generate the next token of a sequence of this many; states are also written."""
    return sum(count * _read_bytes(layer, shape, tokens) for layer, count in architecture.layers.items())


def _read_bytes(layer: Layer, shape: CacheShape, tokens: int) -> int:
    match layer:
        case Recurrent():
            return 2 * _state_bytes(layer, shape)
        case Attention(window=int(window)):
            return min(window, tokens) * _token_bytes(layer, shape)
        case _:
            return tokens * _token_bytes(layer, shape)


def _unified(layers: Mapping[Layer, int], shape: CacheShape) -> tuple[int, Mapping[Layer, int]]:
    """The bytes of a page, equal for all layers, and its tokens for each kind of layer.

    Attention blocks are enlarged until a page holds a recurrent layer's state, or a block of the widest attention.
    """
    states = [_state_bytes(layer, shape) for layer in layers if isinstance(layer, Recurrent)]
    per_token: dict[Layer, int] = {
        layer: _token_bytes(layer, shape) for layer in layers if not isinstance(layer, Recurrent)
    }
    if not per_token:
        return max(states), dict.fromkeys(layers, 1)
    widest = max(per_token.values())
    block = shape.block_tokens
    if states:
        block *= ceil(max(states) / (widest * block))
    page = max(size * block for size in per_token.values())
    # If the page is not a multiple of a kind's block, its pages are padded.
    tokens = {layer: page // size if page % (size * block) == 0 else block for layer, size in per_token.items()}
    return page, {layer: tokens.get(layer, 1) for layer in layers}


def _token_bytes(layer: Layer, shape: CacheShape) -> int:
    match layer:
        case Attention(kv_heads, head_size):
            return 2 * max(1, kv_heads // shape.gpus) * head_size * shape.value_bytes
        case Latent(size):
            return size * shape.value_bytes
        case Recurrent():
            raise AssertionError("a recurrent state has no size per token")


def _state_bytes(layer: Recurrent, shape: CacheShape) -> int:
    return layer.state_bytes // shape.gpus
