"""A model's folder, described without torch and without reading the weights."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappella.config import cards
from cappella.errors import ConfigError
from cappella.placement import special_tokens

Stamp = tuple[tuple[str, int, int], ...]
"""The files of a model: path, size in bytes, and when each was last written, in nanoseconds."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class Folder:
    """`special_tokens` are the tokenizer's control strings, `markup` those that an assistant's turn may hold."""

    path: Path
    config: dict[str, Any]
    special_tokens: tuple[str, ...]
    markup: tuple[str, ...]


def inspect(model: str, folder: Path, card: Path | None = None) -> Folder:
    """Check that a folder can be served and describe it. Raises ConfigError that names what is wrong."""
    at = place(model, folder)
    _refuse_gguf(at, folder)
    if not folder.is_dir():
        raise ConfigError(at, "there is no such folder", _source(card))
    config = read_json(at, folder / "config.json")
    if config.get("auto_map"):
        raise ConfigError(at, "config.json asks for code from the model's folder", "Use a model that vLLM knows")
    tokenizer = read_json(at, folder / "tokenizer.json")
    _require_safetensors(at, folder)
    about = read_json(at, folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    special = special_tokens.special_tokens(tokenizer, about)
    return Folder(folder, config, special, special_tokens.markup(tokenizer, special, _template(folder, about)))


def _template(folder: Path, about: Mapping[str, Any]) -> str:
    apart = folder / "chat_template.jinja"
    return apart.read_text(encoding="utf-8") if apart.exists() else special_tokens.template_in(about)


def stamp(folders: Iterable[Path]) -> Stamp:
    """What tells a model's files from later ones in the same place."""
    return stamp_of(sorted(path for folder in folders for path in folder.glob("*") if path.is_file()))


def stamp_of(files: Iterable[Path]) -> Stamp:
    """The same for files by their paths; those that are not there are left out."""
    there = [path for path in files if path.is_file()]
    return tuple((str(path), (about := path.stat()).st_size, about.st_mtime_ns) for path in there)


def place(model: str, folder: Path) -> str:
    """How an error names a model's folder."""
    return f"models.{model}.weights: {folder}"


def read_json(at: str, path: Path) -> dict[str, Any]:
    """An object in a file of the folder. Raises ConfigError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(at, f"{path.name} cannot be read ({error})", "Copy the whole model folder") from error
    if not isinstance(value, dict):
        raise ConfigError(at, f"{path.name} is not a JSON object", "Copy the whole model folder")
    return value


def _source(card: Path | None) -> str:
    """How a model comes into a folder that is not there."""
    if card is None:
        return "Copy the model there, or fix the path"
    gigabytes = cards.load(card).weight_bytes / 1e9
    return f"Run `cappella pull` with this config to fetch it ({gigabytes:.1f} GB), or fix the path"


def _refuse_gguf(at: str, folder: Path) -> None:
    found = folder.suffix == ".gguf" or (any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors")))
    if found:
        raise ConfigError(at, "GGUF is not supported", "Use the safetensors of the same model")


def _require_safetensors(at: str, folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if pickles:
        raise ConfigError(at, f"{pickles[0]} is a pickle, which can run code when loaded", "Convert it to safetensors")
    raise ConfigError(at, "there is no .safetensors file", "Copy the model's weights there")
