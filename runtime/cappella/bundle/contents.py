"""The contents of a bundle: the models' folders, the cards, and the config in two forms."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from cappella.bundle.manifest import CONFIG_PATH
from cappella.config import Config
from cappella.errors import ConfigError

LICENCES = ("LICEN[CS]E*", "COPYING*", "NOTICE*", "USE_POLICY*")
WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt")
"""The files of a model's folder that an engine reads: no pickle, no code."""


@dataclass(frozen=True, slots=True)
class Item:
    """One file of a future bundle; `content` is its bytes, or the file with them."""

    path: str
    role: str
    content: Path | bytes

    @property
    def size_bytes(self) -> int:
        return len(self.content) if isinstance(self.content, bytes) else self.content.stat().st_size


def is_wanted(name: str) -> bool:
    """Whether a file of a model's folder goes into the bundle. Subfolders do not."""
    return is_licence(name) or is_read(name)


def is_read(name: str) -> bool:
    """Whether an engine reads this file of a model's folder."""
    return name[0] != "." and any(fnmatchcase(name, pattern) for pattern in WANTED)


def is_licence(name: str) -> bool:
    return any(fnmatchcase(name.upper(), pattern) for pattern in LICENCES)


def folders(config: Config) -> Mapping[str, Path]:
    """Every folder of weights or adapters by its first name; two names may share a folder."""
    named = [(name, model.weights) for name, model in config.local.items()]
    named += [(name, path) for model in config.local.values() for name, path in model.adapters.items()]
    names: dict[Path, str] = {}
    for name, path in named:
        names.setdefault(path.resolve(), name)
    return {name: path for path, name in names.items()}


def weights(config: Config) -> Iterator[Item]:
    """Every wanted file of the weights' folders, and a second copy of their licences under licences/."""
    for name, folder in folders(config).items():
        for path in sorted(folder.iterdir()):
            if path.is_file() and is_wanted(path.name):
                yield Item(f"weights/{name}/{path.name}", "weights", path)
            if path.is_file() and is_licence(path.name):
                yield Item(f"licences/models/{name}/{path.name}", "licence", path)


def configs(path: Path, config: Config) -> Iterator[Item]:
    """The YAML as written, the YAML to serve with the bundle's paths, and the cards."""
    _refuse_paths_in_engine_args(path, config)
    yield Item("config/as_written.yaml", "config", path)
    yield Item(CONFIG_PATH, "config", _resolved(path, config).encode())
    for name, model in config.local.items():
        if model.card:
            yield Item(f"config/cards/{name}.yaml", "config", model.card)


def _resolved(path: Path, config: Config) -> str:
    raw = config.model_dump(mode="json", exclude_unset=True)
    names = {folder: name for name, folder in folders(config).items()}
    for name, model in config.local.items():
        raw["models"][name]["weights"] = f"../weights/{names[model.weights.resolve()]}"
        if model.card:
            raw["models"][name]["card"] = f"cards/{name}.yaml"
        if model.adapters:
            adapters = {each: f"../weights/{names[at.resolve()]}" for each, at in model.adapters.items()}
            raw["models"][name]["adapters"] = adapters
    for name in config.remote:
        raw["models"][name] = _from(path.parent.resolve(), raw["models"][name])
    if "server" in raw:
        raw["server"] = _from(path.parent.resolve(), raw["server"])
    head = "# Made by `cappella bundle` from as_written.yaml and the cards, with the bundle's paths.\n"
    return head + yaml.safe_dump(raw, sort_keys=False, allow_unicode=True)


def left_behind(config: Config) -> list[str]:
    """The keys of the config whose files the target machine must provide, since keys and certificates are secret."""
    server = config.server.model_dump(exclude={"log_dir", "audit", "runs"}, exclude_none=True)
    keys = [f"models.{name}.key_file" for name, model in config.remote.items() if model.key_file]
    return [*keys, *(f"server.{key}" for key in _paths(server))]


def _paths(values: Mapping[str, Any]) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, Path):
            yield key
        elif isinstance(value, Mapping):
            yield from (f"{key}.{each}" for each in _paths(value))


def _from(home: Path, value: Any) -> Any:
    """Make paths under the config's folder relative again, so that they work on the target machine."""
    if isinstance(value, str):
        return value.removeprefix(f"{home}/")
    return {key: _from(home, each) for key, each in value.items()} if isinstance(value, Mapping) else value


def _refuse_paths_in_engine_args(path: Path, config: Config) -> None:
    for name, model in config.local.items():
        for key, value in model.engine_args.items():
            for text in _texts(value):
                if os.sep in text and Path(text).exists():
                    problem = f"names {text}, which is not part of the bundle"
                    hint = "Put it into the model's folder if vLLM finds it there, or remove it"
                    raise ConfigError(f"{path}: models.{name}.engine_args.{key}", problem, hint)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for each in value.values():
            yield from _texts(each)
