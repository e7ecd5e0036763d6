"""LoRA adapters: their ranks, and the memory that an engine reserves for them."""

from cappella.config import Model
from cappella.errors import ConfigError
from cappella.placement import folder
from cappella.placement.architecture import Architecture

RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""The values that vLLM's `--max-lora-rank` accepts."""


def served_rank(model: Model) -> int:
    """The rank that the engine reserves memory for: the largest adapter's, rounded up. Raises ConfigError."""
    largest = max((_rank(name, model) for name in model.adapters), default=0)
    served = next((rank for rank in RANKS if rank >= largest), None)
    if served is None:
        problem = f"rank {largest} is more than vLLM supports"
        raise ConfigError("models: adapters", problem, f"Use an adapter of rank {RANKS[-1]} or less")
    return served


def _rank(name: str, model: Model) -> int:
    path = model.adapters[name]
    place = f"models: adapters.{name}: {path}"
    if not (path / "adapter_model.safetensors").is_file():
        raise ConfigError(place, "there is no adapter_model.safetensors", "Give the folder of a PEFT adapter")
    rank = folder.read_json(place, path / "adapter_config.json").get("r")
    if not isinstance(rank, int) or rank < 1:
        raise ConfigError(
            place, f"adapter_config.json has no valid rank: r is {rank!r}", "Give the folder of a LoRA adapter"
        )
    return rank


def slots_bytes(model: Model, architecture: Architecture, gpus: int) -> int:
    """The two low-rank matrices of each projection and of the vocabulary, in 16 bits, for each adapter.

    vLLM reserves them for every projection, whichever an adapter changes; a split divides one of the two
    (`BaseLinearLayerWithLoRA.create_lora_weights`).
    """
    if not model.adapters:
        return 0
    hidden, inner = architecture.hidden_size, architecture.inner_size
    layer = 7 * hidden + (4 * hidden + 3 * inner) // gpus
    layer += 3 * architecture.experts * (hidden + architecture.expert_inner_size // gpus)
    values = architecture.depth * layer + 2 * (hidden + architecture.vocab_size)
    return 2 * len(model.adapters) * served_rank(model) * values


def gathered_bytes(model: Model, architecture: Architecture, tokens: int) -> int:
    """On a CPU, the low-rank matrices gathered for each token of a step, in 16 bits and in 32."""
    if not model.adapters:
        return 0
    return 6 * tokens * served_rank(model) * max(architecture.hidden_size, architecture.inner_size)
