"""A model's folder: checks and metadata, without torch and without reading the weights."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cappella.config import cards, incomplete, paths, weights
from cappella.errors import ConfigError, cause
from cappella.placement import own_context, special_tokens
from cappella.placement.own_context import OwnContext

Fingerprint = tuple[tuple[str, int, int], ...]
"""Path, size in bytes and time of the last change in nanoseconds of each of a model's files."""

_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


@dataclass(frozen=True, slots=True)
class Folder:
    """`special_tokens` are the tokenizer's control strings, `markup` the other markup of assistant turns.

    `longest_token_chars` is the length of the longest entry of its vocabulary, None if that is not in the file.
    """

    path: Path
    config: dict[str, Any]
    special_tokens: tuple[str, ...]
    markup: tuple[str, ...]
    longest_token_chars: int | None

    @property
    def own_context(self) -> OwnContext:
        return own_context.of(self.config)


def inspect(model: str, folder: Path, card: Path | None = None) -> Folder:
    """Check and describe a model's folder. Raises ConfigError if it cannot be served."""
    at = place(model, folder)
    _refuse_gguf(at, folder)
    if not folder.is_dir():
        raise _missing(model, folder, card)
    if reason := incomplete.reason(folder):
        raise ConfigError(at, reason, _repair(folder))
    config = read_json(at, folder / "config.json")
    if config.get("auto_map"):
        raise ConfigError(at, "config.json needs code from the model's folder", "Use a model that vLLM supports itself")
    tokenizer = read_json(at, folder / "tokenizer.json")
    _require_safetensors(at, folder)
    tokenizer_config = (
        read_json(at, folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").exists() else {}
    )
    special = special_tokens.special_tokens(tokenizer, tokenizer_config)
    markup = special_tokens.markup(tokenizer, special, _template(folder, tokenizer_config))
    return Folder(folder, config, special, markup, special_tokens.longest_token_chars(tokenizer))


def _template(folder: Path, tokenizer_config: Mapping[str, Any]) -> str:
    file = folder / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.exists() else special_tokens.template_in(tokenizer_config)


def fingerprint(folders: Iterable[Path]) -> Fingerprint:
    """The fingerprint of all files in these folders, which changes when a file does."""
    return fingerprint_of(sorted(path for folder in folders for path in folder.glob("*") if path.is_file()))


def fingerprint_of(files: Iterable[Path]) -> Fingerprint:
    """The fingerprint of these files; missing ones are left out."""
    stats = [(str(path), path.stat()) for path in files if path.is_file()]
    return tuple((path, stat.st_size, stat.st_mtime_ns) for path, stat in stats)


def place(model: str, folder: Path) -> str:
    """The place in errors about a model's folder."""
    if (name := weights.named_by(folder)) and not folder.exists():
        return f"models.{model}.weights: {name}"
    return f"models.{model}.weights: {folder}"


def read_json(at: str, path: Path) -> dict[str, Any]:
    """The JSON object in a file. Raises ConfigError."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(at, f"{path.name} cannot be read ({cause(error)})", "Copy the whole model folder") from error
    if not isinstance(value, dict):
        raise ConfigError(at, f"{path.name} is not a JSON object", "Copy the whole model folder")
    return value


def _missing(model: str, folder: Path, card: Path | None) -> ConfigError:
    """What was looked for, where, and how to fetch it."""
    size = f" ({cards.load(card).weight_bytes / 1e9:.1f} GB)" if card else ""
    name = weights.named_by(folder)
    if name is None and card is None:
        fix = "write out what the $ stands for: only ~ is filled in" if "$" in str(folder) else "fix the path"
        return ConfigError(place(model, folder), "there is no such folder", f"Copy the model there, or {fix}")
    if name is None:
        hint = f"Run `cappella pull` with this config to fetch it{size}, or fix the path"
        return ConfigError(place(model, folder), "there is no such folder", hint)
    problem = (
        f"it is no folder, and neither in the Hugging Face cache ({weights.cache_dir()}) nor in {paths.models_dir()}"
    )
    if revisions := weights.cached_revisions(name.hub_id):
        problem += f"; the cache has it at {', '.join(revisions)}"
    return ConfigError(place(model, folder), problem, f"Run `cappella pull {name}` to fetch it{size}, or fix the path")


def _repair(folder: Path) -> str:
    name = weights.named_by(folder)
    if name is None:
        return "Fetch or copy the model again"
    return f"Run `cappella pull {name.hub_id}`, with --revision if the config names one"


def _refuse_gguf(at: str, folder: Path) -> None:
    if folder.suffix == ".gguf" or (any(folder.glob("*.gguf")) and not any(folder.glob("*.safetensors"))):
        raise ConfigError(at, "GGUF is not supported", "Use the safetensors files of the same model")


def _require_safetensors(at: str, folder: Path) -> None:
    if any(folder.glob("*.safetensors")):
        return
    pickles = [path.name for pattern in _PICKLES for path in folder.glob(pattern)]
    if pickles:
        raise ConfigError(at, f"{pickles[0]} is a pickle, which can run code when loaded", "Convert it to safetensors")
    raise ConfigError(at, "there is no .safetensors file", "Copy the model's weights there")
