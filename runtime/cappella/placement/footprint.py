"""What one model takes on each GPU, by how many it is split over."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import ceil

from cappella.config import Model, cards
from cappella.errors import ConfigError
from cappella.placement import adapters, architecture, checkpoint, folder, kv_cache, overhead
from cappella.placement.architecture import DTYPE_BYTES, Architecture, Latent
from cappella.placement.checkpoint import Tensor
from cappella.placement.kv_cache import CacheShape, Pool
from cappella.placement.machine import Machine

SPLITS = (1, 2, 4, 8, 16)
BLOCK_TOKENS = {True: 16, False: 128}
"""vLLM's, on a GPU and on a CPU."""
LATENT_FP8_BLOCK_TOKENS = 64
"""FlashMLA's, which alone of Hopper's backends reads latent vectors in fp8."""


@dataclass(frozen=True)
class Footprint:
    """One model of the config on one kind of machine; sizes are in bytes on each GPU."""

    name: str
    model: Model
    architecture: Architecture
    tensors: Sequence[Tensor] | None
    published_bytes: int
    machine: Machine

    @cached_property
    def splits(self) -> tuple[int, ...]:
        """Numbers of GPUs that may share the model: those asked for, or all that its shape allows."""
        asked = self.model.tensor_parallel_size or (len(self.model.gpus) if self.model.gpus else None)
        possible = [
            n for n in SPLITS if n <= len(self.machine.devices) and architecture.legal_split(self.architecture, n)
        ]
        return tuple(n for n in possible if asked in (None, n) and self.cache_is_enough(n))

    def cache_is_enough(self, gpus: int) -> bool:
        """Whether a cache of a set size holds on each GPU what it must."""
        return self.model.kv_cache_bytes is None or self.model.kv_cache_bytes >= self.least_kv_bytes(gpus)

    def weight_bytes(self, gpus: int) -> int:
        """Without the files, an even share of what is published, and a hundredth more for what is not shared."""
        if self.tensors is None:
            whole = self.published_bytes * architecture.expert_padding(self.architecture)
            return ceil(whole / gpus * (1.0 if gpus == 1 else 1.01))
        return checkpoint.rank_bytes(self.tensors, self.architecture, gpus)

    def overhead_bytes(self, gpus: int) -> int:
        seqs, eager = self.model.max_num_seqs, self.model.enforce_eager
        slots = adapters.slots_bytes(self.model, self.architecture, gpus)
        if not self.machine.gpu:
            lookup = self.model.prompt_lookup_tokens is not None
            slots += adapters.gathered_bytes(self.model, self.architecture, self.step_tokens)
            return slots + overhead.cpu_overhead_bytes(self.architecture, seqs, self.step_tokens, eager, lookup)
        step = overhead.step_bytes(self.architecture, gpus, seqs, self.step_tokens)
        latent = overhead.latent_bytes(self.architecture, gpus, self.model.max_model_len)
        kept = overhead.kept_bytes(self.architecture, gpus, seqs, self.step_tokens)
        return slots + self.residue_bytes(gpus) + kept + max(step, latent)

    def residue_bytes(self, gpus: int) -> int:
        """What the engine keeps of each GPU while it sleeps, too."""
        seqs, guesses = self.model.max_num_seqs, self.model.prompt_lookup_tokens or 0
        sizes = 0 if self.model.enforce_eager else overhead.capture_sizes(self.architecture, seqs, 1 + guesses)
        graphs = overhead.graph_bytes(self.architecture, sizes) * (2 if self.model.adapters else 1)
        return overhead.fixed_bytes(gpus) + graphs

    @property
    def step_tokens(self) -> int:
        asked = self.model.engine_args.get(
            "max_num_batched_tokens", self.model.engine_args.get("max-num-batched-tokens")
        )
        smallest = min(device.total_bytes for device in self.machine.devices)
        return overhead.step_tokens(
            smallest if self.machine.gpu else 0, int(asked) if isinstance(asked, (int, str)) else None
        )

    def sequence_bytes(self, gpus: int) -> int:
        """The KV cache of one sequence as long as the model takes."""
        return self.pool(gpus).sequence_bytes(self.model.max_model_len)

    def least_kv_bytes(self, gpus: int) -> int:
        """With less, vLLM refuses to start."""
        return self.pool(gpus).least_bytes(self.model.max_model_len, self.model.max_num_seqs)

    def pool(self, gpus: int) -> Pool:
        fp8 = self.model.kv_cache_dtype == "fp8"
        value = 1 if fp8 else DTYPE_BYTES[self.architecture.dtype]
        latent = any(isinstance(layer, Latent) for layer in self.architecture.layers)
        block = LATENT_FP8_BLOCK_TOKENS if fp8 and latent else BLOCK_TOKENS[self.machine.gpu]
        return kv_cache.pool(self.architecture, CacheShape(value, block, gpus, self.step_tokens))

    def kv_bytes(self, gpus: int) -> int:
        """What the config says, or the least that works."""
        return int(self.model.kv_cache_bytes or self.least_kv_bytes(gpus))

    def least_bytes(self, gpus: int) -> int:
        return self.weight_bytes(gpus) + self.overhead_bytes(gpus) + self.kv_bytes(gpus)


def footprint(name: str, model: Model, machine: Machine) -> Footprint:
    """From the model's folder, or from its card where there is none yet. Raises ConfigError."""
    at = folder.place(name, model.weights)
    tensors = None
    published = 0
    if model.card is not None and not model.weights.exists():
        known = cards.load(model.card)
        config, published = known.config, known.weight_bytes
    else:
        config = folder.inspect(name, model.weights, model.card).config
        tensors = checkpoint.tensors(model.weights, at)
    read = architecture.read(config, at, model.dtype)
    out = Footprint(name, model, read, tensors, published, machine)
    _require_possible(out)
    return out


def _require_possible(found: Footprint) -> None:
    model, place = found.model, f"models.{found.name}"
    here = [device.index for device in found.machine.devices]
    if model.gpus and not set(model.gpus) <= set(here):
        known = ", ".join(map(str, here))
        raise ConfigError(f"{place}.gpus", f"{list(model.gpus)} are not all there: there are {known}", "Name others")
    if found.splits:
        return
    asked = model.tensor_parallel_size or len(model.gpus or (0,))
    if model.kv_cache_bytes is not None and not found.cache_is_enough(asked):
        least = found.least_kv_bytes(asked)
        problem = f"to serve {model.max_model_len} tokens it needs {-(-least // 2**20)} MiB at least"
        raise ConfigError(f"{place}.kv_cache_bytes", problem, "Raise it, leave it out, or lower max_model_len")
    read = found.architecture
    sizes = ", ".join(str(size) for size in dict.fromkeys((*read.divisible, read.kv_heads)))
    problem = f"{asked} GPUs cannot share it: there are {len(here)}, and its sizes are {sizes}"
    key = "gpus" if model.gpus else "tensor_parallel_size"
    raise ConfigError(f"{place}.{key}", problem, "Take a number that divides them")
