"""Memory of one model on each GPU, for each legal split."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

from cappella.config import Model, cards
from cappella.config.engine_args import canonical
from cappella.errors import ConfigError
from cappella.placement import (
    adapters,
    architecture,
    checkpoint,
    folder,
    kv_cache,
    overhead,
    own_context,
    pooling,
    quantisation,
)
from cappella.placement.architecture import DTYPE_BYTES, Architecture, Attention, Latent
from cappella.placement.checkpoint import Tensor
from cappella.placement.kv_cache import CacheShape, Pool
from cappella.placement.machine import Device, Machine
from cappella.placement.own_context import OwnContext

SPLITS = (1, 2, 4, 8, 16)
VISION_TOWER_BYTES = 1 << 30
"""More than the vision encoder of any model with a card: Gemma 3's has 0.8 GiB."""
LEAST_TOKENS = 2048
"""A plan chooses no shorter context, but for a model whose own is shorter."""
BLOCK_TOKENS = {True: 16, False: 128}
"""vLLM's block size, on a GPU (True) and on a CPU (False)."""
LATENT_FP8_BLOCK_TOKENS = 64
"""The block size of FlashMLA, the only backend on Hopper that reads latent vectors in fp8."""
BLACKWELL = (10, 0)
LATENT_BLACKWELL_BLOCK_TOKENS = 128
"""That of CUTLASS's kernels; FlashInfer's take 32 or 64 (vLLM 0.32: `mla/flashinfer_mla.py`, `mla/cutlass_mla.py`)."""
MAX_NARROW_HEAD = 256
WIDE_FP8_BLOCK_TOKENS = 64
"""FlashAttention's for wider heads than that in fp8, as Gemma 4 has (vLLM 0.32: `flash_attn.py`)."""


@dataclass(frozen=True)
class Footprint:
    """One model of the config on one machine; sizes are bytes on each GPU.

    At least `sequences` of `max_model_len` have room in its KV cache. One that `reads_whole_texts` has room for the longest
    in each step. One that is `text_only` could take images, and is started without: `images: false` says so.
    """

    name: str
    model: Model
    architecture: Architecture
    tensors: Sequence[Tensor] | None
    published_bytes: int
    machine: Machine
    own: OwnContext
    sequences: int = 1
    reads_whole_texts: bool = False
    text_only: bool = False

    @cached_property
    def splits(self) -> tuple[int, ...]:
        """Numbers of GPUs that may share the model: the configured one, or all that its shape allows."""
        configured = self.model.tensor_parallel_size or (len(self.model.gpus) if self.model.gpus else None)
        possible = [
            n for n in SPLITS if n <= len(self.machine.devices) and architecture.legal_split(self.architecture, n)
        ]
        return tuple(n for n in possible if configured in (None, n) and self.cache_is_enough(n))

    def cache_is_enough(self, gpus: int) -> bool:
        """Whether a configured cache size is at least the minimum."""
        return self.model.kv_cache_bytes is None or self.model.kv_cache_bytes >= self.min_kv_bytes(gpus)

    def weight_bytes(self, gpus: int) -> int:
        """The weights and the tables of position embeddings, which vLLM makes beside them, and on a CPU packed copies."""
        return self.stored_bytes(gpus) + self.architecture.rope_bytes + (0 if self.machine.gpu else self._packed_bytes)

    @property
    def _packed_bytes(self) -> int:
        """oneDNN's copies of the embeddings and of the head, also where these are one: vLLM 0.32 keeps both forms of them.

        Of other matrices only the packed form stays (`dispatch_cpu_unquantized_gemm`).
        """
        shape = self.architecture
        packed = 2 if self.model.task == "generate" else 1
        return packed * shape.vocab_size * shape.hidden_size * DTYPE_BYTES[shape.dtype]

    def stored_bytes(self, gpus: int) -> int:
        """From the files; without them, an even share of the published size, plus 1 % for what a split replicates."""
        if self.tensors is not None:
            return self._as_loaded(checkpoint.rank_bytes(self.tensors, self.architecture, gpus), gpus)
        total_bytes = self.published_bytes * architecture.expert_padding(self.architecture, gpus)
        return self._as_loaded(ceil(total_bytes / gpus * (1.0 if gpus == 1 else 1.01)), gpus)

    def _as_loaded(self, stored_bytes: int, gpus: int) -> int:
        """Less where vLLM quantises while it loads; embeddings and vision encoders stay as they are."""
        shape, share = self.architecture, quantisation.ON_LOAD.get(str(_engine_arg(self.model, "quantization")), 1.0)
        if share == 1.0 or shape.quantisation.method is not None:
            return stored_bytes
        embeddings = DTYPE_BYTES[shape.dtype] * shape.vocab_size * shape.hidden_size * (1 if shape.tied else 2)
        kept = min(stored_bytes, embeddings // gpus + VISION_TOWER_BYTES * shape.vision)
        return kept + ceil((stored_bytes - kept) * share)

    def overhead_bytes(self, gpus: int) -> int:
        # Nothing is sampled from what writes nothing.
        seqs, eager = self.model.max_num_seqs * (self.model.task == "generate"), self.model.enforce_eager
        slots = adapters.slots_bytes(self.model, self.architecture, gpus)
        if not self.machine.gpu:
            lookup = self.model.prompt_lookup_tokens is not None
            slots += adapters.gathered_bytes(self.model, self.architecture, self.step_tokens)
            return slots + overhead.cpu_overhead_bytes(self.architecture, seqs, self.step_tokens, eager, lookup)
        step = overhead.gpu_step_bytes(self.architecture, gpus, seqs * self._query_tokens, self.step_tokens)
        latent = overhead.latent_bytes(self.architecture, gpus, self.model.context_tokens)
        persistent = overhead.persistent_bytes(self.architecture, gpus, seqs, self.step_tokens)
        return slots + self.asleep_bytes(gpus) + persistent + max(step, latent)

    def asleep_bytes(self, gpus: int, keeps_graphs: bool = True) -> int:
        """Bytes that the engine keeps even while it sleeps: context, and mostly graphs, on the GPU that takes the most."""
        shared = gpus > 1
        kept = (overhead.context_bytes(gpu) + shared * overhead.split_bytes(gpu) for gpu in self._possible_devices)
        return max(kept) + self.graph_bytes() * keeps_graphs

    def graph_bytes(self) -> int:
        """Its CUDA graphs; with adapters, which are captured apart, twice as many."""
        if self.model.enforce_eager:
            return 0
        count = overhead.captured_graphs(self.architecture, self.model.max_num_seqs, self._query_tokens)
        largest = max(overhead.graph_bytes(self.architecture, count, gpu) for gpu in self._possible_devices)
        return largest * (2 if self.model.adapters else 1)

    @property
    def step_tokens(self) -> int:
        """Tokens of one scheduler step."""
        value = _engine_arg(self.model, "max_num_batched_tokens")
        configured = int(value) if isinstance(value, (int, str)) else None
        tokens = overhead.step_tokens(self.smallest_gpu.total_bytes if self.machine.gpu else 0, configured)
        return max(tokens, self.model.context_tokens) if self.reads_whole_texts else tokens

    @property
    def _query_tokens(self) -> int:
        """Tokens of a sequence in a step that generates: one, and those that prompt lookup guesses."""
        return 1 + (self.model.prompt_lookup_tokens or 0)

    @property
    def _possible_devices(self) -> Sequence[Device]:
        """Those that it may be placed on. They may be of several kinds, of which each needs room of its own size."""
        pinned = self.model.gpus
        return [each for each in self.machine.devices if pinned is None or each.index in pinned]

    @property
    def smallest_gpu(self) -> Device:
        return min(self.machine.devices, key=lambda device: device.total_bytes)

    def sequence_bytes(self, gpus: int) -> int:
        """The KV cache of one sequence of `max_model_len`."""
        return self.pool(gpus).sequence_bytes(self.model.context_tokens)

    def min_kv_bytes(self, gpus: int) -> int:
        """The smallest KV cache with which vLLM starts, and the room for further sequences."""
        least = self.pool(gpus).min_bytes(self.model.context_tokens, self.model.max_num_seqs)
        return least + (self.sequences - 1) * self.sequence_bytes(gpus)

    def pool(self, gpus: int) -> Pool:
        return kv_cache.pool(self.architecture, self._cache_shape(gpus))

    def read_bytes(self, gpus: int, tokens: int) -> int:
        """What is read of the KV cache for the next token of a sequence of this many."""
        return kv_cache.read_bytes(self.architecture, self._cache_shape(gpus), tokens)

    def _cache_shape(self, gpus: int) -> CacheShape:
        fp8 = self.model.kv_cache_dtype == "fp8"
        value = 1 if fp8 else DTYPE_BYTES[self.architecture.dtype]
        return CacheShape(value, self._block_tokens(fp8), gpus, self.step_tokens)

    def _block_tokens(self, fp8: bool) -> int:
        kinds = self.architecture.layers
        if self.machine.gpu and any(isinstance(layer, Latent) for layer in kinds):
            if any(gpu.capability and gpu.capability >= BLACKWELL for gpu in self._possible_devices):
                return LATENT_BLACKWELL_BLOCK_TOKENS
            return LATENT_FP8_BLOCK_TOKENS if fp8 else BLOCK_TOKENS[True]
        wide = any(isinstance(layer, Attention) and layer.head_size > MAX_NARROW_HEAD for layer in kinds)
        return WIDE_FP8_BLOCK_TOKENS if self.machine.gpu and fp8 and wide else BLOCK_TOKENS[self.machine.gpu]

    def kv_bytes(self, gpus: int) -> int:
        """The configured KV cache, or the minimum."""
        return int(self.model.kv_cache_bytes or self.min_kv_bytes(gpus))

    def min_bytes(self, gpus: int) -> int:
        return self.weight_bytes(gpus) + self.overhead_bytes(gpus) + self.kv_bytes(gpus)


def footprint(name: str, model: Model, machine: Machine) -> Footprint:
    """The footprint from the model's folder, or from its card if the folder does not exist yet. Raises ConfigError."""
    at = folder.place(name, model.weights)
    tensors, published, encoder, published_width = None, 0, 0, 2
    if model.card is not None and not model.weights.exists():
        card = cards.load(model.card)
        config, published, encoder = card.config, card.weight_bytes - card.draft_bytes, card.encoder_bytes
        published_width = round(card.weight_bytes / card.parameters) or 1
    else:
        config = folder.inspect(name, model.weights, model.card).config
        tensors = checkpoint.tensors(model.weights, at)
    pooling.require_suited(name, model, config)
    own = pooling.own_context(model, config, own_context.of(config))
    if model.max_model_len is None:
        # The plan raises it as far as there is room.
        model = model.model_copy(update={"max_model_len": min(LEAST_TOKENS, own.default_tokens)})
    _require_context(name, model, own)
    if model.dtype == "auto" and machine.slow_in_16_bits and "quantization_config" not in config:
        model = model.model_copy(update={"dtype": "float32"})
    sizes = architecture.read(config, at, model.dtype)
    if pooling.is_encoder(config):
        sizes = replace(sizes, layers={})
    if sizes.quantisation.method is None and published:
        # A processor may compute in float32 what was published in 16 bits.
        published, encoder = (size * DTYPE_BYTES[sizes.dtype] // published_width for size in (published, encoder))
    text_only = sizes.vision and _refuses_images(model)
    if text_only or _engine_arg(model, "language_model_only") is True:
        sizes, tensors = replace(sizes, vision=False), tensors and checkpoint.without_encoders(tensors)
        published -= encoder
    whole = pooling.reads_whole_texts(model, config)
    out = Footprint(name, model, sizes, tensors, published, machine, own, 1, whole, text_only)
    _require_possible(out)
    return out


def _engine_arg(model: Model, wanted: str) -> object:
    return next((value for name, value in model.engine_args.items() if canonical(name) == wanted), None)


def _refuses_images(model: Model) -> bool:
    """Whether its config or its card says so; a flag has the last word.

    A model of which neither says anything may be called by its own name with images.
    """
    is_said = "images" in model.model_fields_set and not model.images
    return is_said and model.task == "generate" and _engine_arg(model, "language_model_only") is None


def _require_context(name: str, model: Model, own: OwnContext) -> None:
    """Raises ConfigError for a context that vLLM would refuse minutes later."""
    overridden = "hf_overrides" in map(canonical, model.engine_args)
    if model.context_tokens > own.max_tokens and not overridden:
        problem = f"{model.max_model_len} is more than the model's own context of {own.max_tokens} tokens"
        raise ConfigError(f"models.{name}.max_model_len", problem, "Lower it, or remove it: the plan then chooses")


def _require_possible(footprint: Footprint) -> None:
    model, place = footprint.model, f"models.{footprint.name}"
    here = [device.index for device in footprint.machine.devices]
    if model.gpus and not set(model.gpus) <= set(here):
        problem = f"{list(model.gpus)} are not all on this machine, which has {', '.join(map(str, here))}"
        raise ConfigError(f"{place}.gpus", problem, "Name others")
    if footprint.splits:
        return
    count = model.tensor_parallel_size or len(model.gpus or (0,))
    if model.kv_cache_bytes is not None and not footprint.cache_is_enough(count):
        least = footprint.min_kv_bytes(count)
        problem = f"max_model_len {model.max_model_len} needs at least {-(-least // 2**20)} MiB"
        raise ConfigError(f"{place}.kv_cache_bytes", problem, "Raise it, remove it, or lower max_model_len")
    shape = footprint.architecture
    sizes = ", ".join(str(size) for size in dict.fromkeys((*shape.divisible, shape.kv_heads)))
    problem = f"it cannot be split over {count} GPUs: there are {len(here)}, and its sizes are {sizes}"
    key = "gpus" if model.gpus else "tensor_parallel_size"
    raise ConfigError(f"{place}.{key}", problem, "Use a number that divides them")
