"""Checks of the `documents` section: folders that exist, and models that embed or rank."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from cappella.config import Config, Documents, yaml_source
from cappella.config.documents import INDEX_APPLICATION_ID
from cappella.database import has_application_id
from cappella.errors import ConfigError
from cappella.vocabulary import Task


def with_paths(documents: Documents, folder: Path) -> Documents:
    """The documents with paths that are relative to the config's folder."""
    index = documents.index and folder / documents.index.expanduser()
    return documents.model_copy(update={"folder": folder / documents.folder.expanduser(), "index": index})


def check(path: Path, root: yaml.Node | None, config: Config) -> Iterator[ConfigError]:
    """What is wrong with the documents of a config."""
    indexes: dict[Path, str] = {}
    for name, documents in config.documents.items():
        if not documents.folder.is_dir():
            at = yaml_source.place(path, root, ("documents", name, "folder"))
            problem = "is no folder" if documents.folder.exists() else "does not exist"
            yield ConfigError(at, f"{documents.folder} {problem}", "Name the folder with the documents")
        if documents.index and _is_of_another_kind(documents.index):
            at = yaml_source.place(path, root, ("documents", name, "index"))
            hint = "Name a file of its own, which `cappella` makes"
            yield ConfigError(at, f"{documents.index} exists, and is no index of documents", hint)
        if documents.index and indexes.setdefault(documents.index, name) != name:
            at = yaml_source.place(path, root, ("documents", name, "index"))
            problem = f"{documents.index} is the index of {indexes[documents.index]}, too"
            yield ConfigError(at, problem, "Give each documents a file of its own")
        yield from _check_model(path, root, config, name, "embedder", ("embed",))
        yield from _check_model(path, root, config, name, "reranker", ("rerank", "reward"))


def _is_of_another_kind(index: Path) -> bool:
    """An empty file is of none yet."""
    is_empty = index.is_file() and not index.stat().st_size
    return index.exists() and not is_empty and not has_application_id(index, INDEX_APPLICATION_ID)


def _check_model(
    path: Path, root: yaml.Node | None, config: Config, name: str, key: str, tasks: tuple[Task, ...]
) -> Iterator[ConfigError]:
    named = getattr(config.documents[name], key)
    if named is None:
        return
    model = config.models_by_name.get(named)
    if model is None or model.capabilities.task not in tasks:
        at = yaml_source.place(path, root, ("documents", name, key))
        able = [each for each, other in config.models_by_name.items() if other.capabilities.task in tasks]
        hint = f"Use one of {', '.join(able)}" if able else f"Add a model with task: {tasks[0]}"
        problem = "there is no such model" if model is None else "that is not its task"
        yield ConfigError(at, f"{key} names {named!r}: {problem}", hint)
