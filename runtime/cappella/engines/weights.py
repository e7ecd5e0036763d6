"""What a folder of weights says of itself, read without torch and without reading the weights."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappella.errors import ConfigError

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class Weights:
    """`weight_bytes` is the size of the safetensors files; `special_tokens` are the tokenizer's control strings."""

    weight_bytes: int
    max_position_embeddings: int | None
    special_tokens: tuple[str, ...]


def inspect(model: str, folder: Path) -> Weights:
    """Check that a folder can be served and describe it. Raises ConfigError that names what is wrong."""
    place = f"models.{model}.weights: {folder}"
    if not folder.is_dir():
        raise ConfigError(place, "there is no such folder", "Copy the model there, or mend the path")
    config = _read_json(place, folder / "config.json")
    if config.get("auto_map"):
        raise ConfigError(place, "config.json asks for code from the model's folder", "Use a model that vLLM knows")
    tokenizer = _read_json(place, folder / "tokenizer.json")
    return Weights(
        weight_bytes=sum(path.stat().st_size for path in _safetensors(place, folder)),
        max_position_embeddings=config.get("max_position_embeddings"),
        special_tokens=tuple(t["content"] for t in tokenizer.get("added_tokens", []) if t.get("special")),
    )


def _safetensors(place: str, folder: Path) -> list[Path]:
    found = sorted(folder.glob("*.safetensors"))
    if found:
        return found
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if pickles:
        raise ConfigError(
            place, f"{pickles[0]} is a pickle, which can run code when loaded", "Convert it to safetensors"
        )
    raise ConfigError(place, "there is no .safetensors file", "Copy the model's weights there")


def _read_json(place: str, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(place, f"{path.name} cannot be read ({error})", "Copy the whole model folder") from error
    if not isinstance(value, dict):
        raise ConfigError(place, f"{path.name} holds no JSON object", "Copy the whole model folder")
    return value
