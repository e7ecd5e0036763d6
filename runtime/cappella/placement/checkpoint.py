"""What a model's weights weigh, from the headers of its safetensors files: no weight is read."""

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

# Whole on every GPU of a split: norms and biases of what is summed, latent projections, routers, states' conv biases.
_WHOLE = re.compile(
    r"norm|kv_a_proj|q_a_proj|mlp\.gate\.weight|router\.|block_sparse_moe\.gate\.|patch_embed|position_embed"
)
_KEYS_VALUES = re.compile(r"(k|v)_proj\.")
_VOCABULARY = re.compile(r"(embed_tokens|lm_head|embeddings|output)\.weight$")
# A draft model for speculation that comes with the weights; vLLM loads it only if asked to.
_DRAFT = re.compile(r"(^|\.)mtp\.|\.eh_proj|\.enorm|\.hnorm")


@dataclass(frozen=True, slots=True)
class Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    size_bytes: int


def tensors(folder: Path, place: str) -> list[Tensor]:
    """Every tensor of the safetensors files that vLLM reads. Raises ConfigError for one that is cut off or is none."""
    return [tensor for path in _files(folder, place) for tensor in _header(path, place)]


def _files(folder: Path, place: str) -> list[Path]:
    """Those of the index, where there is one: some folders hold the weights a second time, in their maker's form."""
    index = folder / "model.safetensors.index.json"
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    named = sorted(set(read_json(place, index).get("weight_map", {}).values()))
    missing = [name for name in named if not (folder / name).is_file()]
    if missing or not named:
        problem = f"{index.name} names {missing[0] if missing else 'no file'}, which is not there"
        raise ConfigError(place, problem, "Copy the model's weights once more")
    return [folder / name for name in named]


def _header(path: Path, place: str) -> Iterator[Tensor]:
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(HEADER_LENGTH_BYTES), "little")
            if length > HEADER_LIMIT_BYTES:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        found = [
            Tensor(name, entry["dtype"], tuple(entry["shape"]), entry["data_offsets"][1] - entry["data_offsets"][0])
            for name, entry in header.items()
            if name != "__metadata__"
        ]
        end = max((entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"), default=0)
        whole = HEADER_LENGTH_BYTES + length + end
        if path.stat().st_size != whole:
            raise ValueError(f"{path.stat().st_size} bytes where its header speaks of {whole}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        problem = f"{path.name} is no whole safetensors file ({error})"
        raise ConfigError(place, problem, "Copy the model's weights once more") from error
    yield from found


def rank_bytes(found: Sequence[Tensor], architecture: Architecture, gpus: int) -> int:
    """Bytes on each GPU when the weights are split over so many."""
    return sum(_on_one(tensor, architecture, gpus) for tensor in found if _is_loaded(tensor, architecture))


def _is_loaded(tensor: Tensor, architecture: Architecture) -> bool:
    if architecture.tied and tensor.name.endswith("lm_head.weight"):
        return False
    layer = re.search(r"layers\.(\d+)\.", tensor.name)
    beyond = layer is not None and "vision" not in tensor.name and int(layer[1]) >= architecture.depth
    return not beyond and not _DRAFT.search(tensor.name)


def _on_one(tensor: Tensor, architecture: Architecture, gpus: int) -> int:
    size = _size_in_memory(tensor, architecture)
    if "experts" in tensor.name:
        size = round(size * expert_padding(architecture))
    if gpus == 1 or len(tensor.shape) < 2 or _WHOLE.search(tensor.name):
        return size
    if _KEYS_VALUES.search(tensor.name):
        return ceil(size / min(gpus, architecture.kv_heads))
    if _VOCABULARY.search(tensor.name) and tensor.shape[0] == architecture.vocab_size:
        padded = ceil(architecture.vocab_size / VOCABULARY_PADDING) * VOCABULARY_PADDING
        return ceil(size * padded / architecture.vocab_size / gpus)
    return ceil(size / gpus)


def _size_in_memory(tensor: Tensor, architecture: Architecture) -> int:
    """A plain weight is loaded as what the model computes in; what is small, counts scales or is packed stays."""
    if tensor.dtype in PLAIN and len(tensor.shape) >= 2 and "scale" not in tensor.name:
        return prod(tensor.shape) * DTYPE_BYTES[architecture.dtype]
    return tensor.size_bytes
