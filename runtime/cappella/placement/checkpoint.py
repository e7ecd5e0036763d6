"""Sizes of a model's weights, from the headers of its safetensors files. No weights are read."""

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod
from pathlib import Path

from cappella.errors import ConfigError
from cappella.placement.architecture import DTYPE_BYTES, Architecture, expert_padding
from cappella.placement.folder import read_json

HEADER_LENGTH_BYTES = 8
# The format's own limit: https://huggingface.co/docs/safetensors, "Format".
HEADER_LIMIT_BYTES = 100_000_000
VOCABULARY_PADDING = 64
PLAIN = frozenset({"F32", "F16", "BF16"})

# Replicated on every GPU of a split: norms, biases of summed outputs, latent projections, routers, conv biases of states.
_REPLICATED = re.compile(
    r"norm|kv_a_proj|q_a_proj|mlp\.gate\.weight|router\.|block_sparse_moe\.gate\.|patch_embed|position_embed"
)
_KEYS_VALUES = re.compile(r"(k|v)_proj\.")
_VOCABULARY = re.compile(r"(embed_tokens|lm_head|embeddings|output)\.weight$")
# A draft model for speculation inside the checkpoint; vLLM loads it only if speculation with it is configured.
_DRAFT = re.compile(r"(^|\.)mtp\.|\.eh_proj|\.enorm|\.hnorm")
# The encoders of images and sounds, and what projects from them. Not what language layers have for images, as CogVLM's do.
_ENCODER = re.compile(
    r"^(model\.|thinker\.)?(vision\w*|visual\w*|audio\w*|embed_vision|embed_audio|(multi_modal|mm)_projector|vpm|apm|resampler)\."
)


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def tensors(folder: Path, place: str) -> list[Tensor]:
    """All tensors of the safetensors files that vLLM reads. Raises ConfigError for a truncated or invalid file."""
    return [tensor for path in _files(folder, place) for tensor in _header(path, place)]


def _files(folder: Path, place: str) -> list[Path]:
    """The files of the index, if there is one: some folders have the weights a second time, in another format."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    named = sorted(set(read_json(place, index).get("weight_map", {}).values()))
    missing = [name for name in named if not (folder / name).is_file()]
    if missing or not named:
        problem = f"{index.name} names {missing[0]}, which is missing" if missing else f"{index.name} names no file"
        raise ConfigError(place, problem, "Copy the model's weights again")
    return [folder / name for name in named]


def _header(path: Path, place: str) -> Iterator[Tensor]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
            if length > HEADER_LIMIT_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        tensors_in_file = [
            Tensor(name, entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        expected = HEADER_LENGTH_BYTES + length + end
        if path.stat().st_size != expected:
            raise ValueError(f"it has {path.stat().st_size} bytes, and its header describes {expected}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path.name} is not a complete safetensors file ({error})"
        raise ConfigError(place, problem, "Copy the model's weights again") from error
    yield from tensors_in_file


def rank_bytes(weights: Sequence[Tensor], architecture: Architecture, gpus: int) -> int:
    """Bytes of the weights on each GPU of a split over this many."""
    return sum(_on_one(tensor, architecture, gpus) for tensor in weights if _is_loaded(tensor, architecture))


def without_encoders(weights: Sequence[Tensor]) -> list[Tensor]:
    """What vLLM loads with `--language-model-only`; encoders by other names than usual stay."""
    return [tensor for tensor in weights if not _ENCODER.search(tensor.name)]


def _is_loaded(tensor: Tensor, architecture: Architecture) -> bool:
    if architecture.tied and tensor.name.endswith("lm_head.weight"):
        return False
    layer = re.search(r"layers\.(\d+)\.", tensor.name)
    beyond = layer is not None and "vision" not in tensor.name and int(layer[1]) >= architecture.depth
    return not beyond and not _DRAFT.search(tensor.name)


def _on_one(tensor: Tensor, architecture: Architecture, gpus: int) -> int:
    size = _size_in_memory(tensor, architecture)
    if "experts" in tensor.name:
        size = round(size * expert_padding(architecture, gpus))
    if gpus == 1 or len(tensor.shape) < 2 or _REPLICATED.search(tensor.name):
        return size
    if _KEYS_VALUES.search(tensor.name):
        return ceil(size / min(gpus, architecture.kv_heads))
    if _VOCABULARY.search(tensor.name) and tensor.shape[0] == architecture.vocab_size:
        padded = ceil(architecture.vocab_size / VOCABULARY_PADDING) * VOCABULARY_PADDING
        return ceil(size * padded / architecture.vocab_size / gpus)
    return ceil(size / gpus)


def _size_in_memory(tensor: Tensor, architecture: Architecture) -> int:
    """Plain weights are loaded in the model's dtype; vectors, scales and packed weights keep theirs."""
    if tensor.dtype in PLAIN and len(tensor.shape) >= 2 and "scale" not in tensor.name:
        return prod(tensor.shape) * DTYPE_BYTES[architecture.dtype]
    return tensor.size_bytes
