"""`cappella models`: the models of this machine, in the Hugging Face cache and where `cappella pull` puts them."""

import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cappella.bundle import origin
from cappella.config import Config, cards, hub_library, incomplete, load, paths, weights
from cappella.config.weights import HubName
from cappella.errors import ConfigError
from cappella.placement import own_context
from cappella.placement.folder import read_json

HUB_CACHE = "Hugging Face cache"
PULLED = "cappella pull"
OTHER_FORMS = frozenset((".gguf", ".bin", ".pt", ".pth", ".ckpt"))
_LICENCE = re.compile(r"^license: *(\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class StoredModel:
    """One model on this machine. `problem` is why it cannot be served; what is unknown is empty or 0.

    `used_by` are the configs that name it.
    """

    name: str
    source: str
    folder: Path
    size_bytes: int
    licence: str
    context_tokens: int
    family: str
    problem: str
    used_by: Sequence[str]


def models(configs: Sequence[Path]) -> list[StoredModel]:
    """All models of this machine by name, with those of these YAML files that use them."""
    users = _users(configs)
    found = [*_cached(weights.cache_dir()), *_pulled(paths.models_dir())]
    return [
        _stored(name, source, folder, users) for name, source, folder in sorted(found, key=lambda each: str(each[0]))
    ]


def one(name: str, configs: Sequence[Path]) -> StoredModel:
    """The model of this name. Raises ConfigError if there is none, or if it is in both places."""
    known = models(configs)
    found = [each for each in known if name.lower() in (each.name.lower(), str(each.folder).lower())]
    if not found:
        names = ", ".join(each.name for each in known) or "none"
        raise ConfigError(name, "is not on this machine", f"Here are: {names}")
    if len(found) > 1:
        raise ConfigError(name, "is in both places", f"Name its folder: {' or '.join(str(e.folder) for e in found)}")
    return found[0]


def remove(model: StoredModel) -> None:
    """Delete a model's files. In the Hugging Face cache those that another revision shares stay. Raises OSError."""
    if model.source == PULLED:
        shutil.rmtree(model.folder)
        return
    from huggingface_hub import scan_cache_dir

    repository = model.folder.parents[1]
    cache = scan_cache_dir(repository.parent)
    known = frozenset(each for each in cache.repos if each.repo_path == repository.resolve())
    if known:
        # Copies of a model have its commits, and huggingface_hub would delete from any of them.
        replace(cache, repos=known).delete_revisions(model.folder.name).execute()
    else:
        _remove_broken(model.folder, repository)


def _remove_broken(folder: Path, repository: Path) -> None:
    """Delete a commit with what no other commit links to: huggingface_hub does not know a repository with a broken download."""
    own = _linked_files(folder)
    shutil.rmtree(folder)
    for unused in own - _linked_files(repository / "snapshots"):
        unused.unlink(missing_ok=True)
    if not any((repository / "snapshots").iterdir()):
        shutil.rmtree(repository)


def _linked_files(folder: Path) -> set[Path]:
    return {each.resolve() for each in folder.rglob("*") if each.is_symlink()}


def _cached(cache: Path) -> Iterator[tuple[HubName, str, Path]]:
    for folder in sorted(cache.glob(f"{hub_library.REPOSITORY}*/snapshots/*")):
        commit = weights.named_by(folder)
        if commit and folder.is_dir():
            newest = weights.cached(HubName(commit.hub_id)) == folder
            yield HubName(commit.hub_id) if newest else commit, HUB_CACHE, folder


def _pulled(home: Path) -> Iterator[tuple[HubName, str, Path]]:
    for folder in sorted(home.glob("*/*")):
        name = weights.named_by(folder)
        if name and folder.is_dir():
            yield name, PULLED, folder


def _stored(name: HubName, source: str, folder: Path, users: Mapping[Path, Sequence[str]]) -> StoredModel:
    files = [each for each in folder.rglob("*") if each.is_file()]
    try:
        config = read_json(str(folder), folder / "config.json")
    except ConfigError:
        config = {}
    context = own_context.of(config).default_tokens if config else 0
    size_bytes = sum(each.stat().st_size for each in files)
    used_by = users.get(folder.resolve(), ())
    family = str(config.get("model_type", ""))
    return StoredModel(
        str(name), source, folder, size_bytes, licence(name, folder), context, family, _problem(folder), used_by
    )


def _problem(folder: Path) -> str:
    suffixes = {path.suffix for path in folder.glob("*")}
    if ".safetensors" not in suffixes and suffixes & OTHER_FORMS:
        return "no .safetensors file: GGUF and pickles are not loaded"
    return incomplete.reason(folder) or ("" if ".safetensors" in suffixes else "there is no .safetensors file")


def licence(name: HubName, folder: Path) -> str:
    """As recorded by `cappella pull`, as the model's README says, or as its card claims; empty if none does."""
    recorded = origin.read(folder / origin.NAME)
    if recorded and recorded.licence:
        return recorded.licence
    readme = folder / "README.md"
    if readme.is_file() and (found := _LICENCE.search(readme.read_text(errors="replace")[:4096])):
        return found[1]
    card = cards.shipped(name.hub_id)
    return cards.load(card).licence if card else ""


def _users(configs: Sequence[Path]) -> dict[Path, list[str]]:
    """The configs that use each folder. A YAML file that is no config uses none."""
    out: dict[Path, list[str]] = {}
    for path in configs:
        for folder in _folders(path):
            out.setdefault(folder.resolve(), []).append(str(path))
    return out


def _folders(path: Path) -> set[Path]:
    try:
        config: Config = load.load(path)
    except ConfigError:
        return set()
    return {model.weights for model in config.local.values()}
