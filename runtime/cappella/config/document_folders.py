"""Checks of the `documents` section: folders that exist, and models that embed or rank."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import yaml
from pydantic import model_validator

from cappella.config import yaml_source
from cappella.config.documents import INDEX_APPLICATION_ID, Documents
from cappella.config.fields import Name
from cappella.config.models import AnyModel, with_adapters
from cappella.database import has_application_id
from cappella.errors import ConfigError, raise_all
from cappella.types import Frozen
from cappella.vocabulary import Task


class WithDocuments(Protocol):
    """A config, or its part that documents need."""

    @property
    def documents(self) -> Mapping[str, Documents]: ...

    @property
    def models_by_name(self) -> Mapping[str, AnyModel]: ...


class DocumentsPart(Frozen):
    """Of a config its documents, and the models that they name: mistakes elsewhere do not keep anybody from searching."""

    models: Mapping[Name, AnyModel] = {}
    documents: Mapping[Name, Documents] = {}

    @model_validator(mode="before")
    @classmethod
    def _alone(cls, written: Any) -> Any:
        if not isinstance(written, dict):
            return written
        documents, models = written.get("documents", {}), written.get("models")
        written_names = [each.get(key) for each in _mappings(documents) for key in ("embedder", "reranker")]
        named = {name for name in written_names if isinstance(name, str)}
        all_models = models.items() if isinstance(models, dict) else ()
        kept = {name: each for name, each in all_models if named & _names(name, each)}
        return {"models": kept, "documents": documents}

    @property
    def models_by_name(self) -> Mapping[str, AnyModel]:
        """See `Config.models_by_name`."""
        return with_adapters(self.models)


def load(path: Path) -> Mapping[str, Documents]:
    """The documents of a config, whatever else is in it. Raises ConfigError, Mistakes for several."""
    root, part = yaml_source.load(path, DocumentsPart, "Give the path of a YAML config file")
    folder = path.parent.resolve()
    found = {name: with_paths(each, folder) for name, each in part.documents.items()}
    raise_all(list(check(path, root, part.model_copy(update={"documents": found}))))
    return found


def _mappings(written: Any) -> list[dict[str, Any]]:
    values = written.values() if isinstance(written, dict) else ()
    return [each for each in values if isinstance(each, dict)]


def _names(name: Any, model: Any) -> set[Any]:
    """A model's own name, and those of its adapters."""
    adapters = model.get("adapters") if isinstance(model, dict) else None
    return {name, *(adapters if isinstance(adapters, dict) else ())}


def with_paths(documents: Documents, folder: Path) -> Documents:
    """The documents with paths that are relative to the config's folder."""
    index = documents.index and folder / documents.index.expanduser()
    return documents.model_copy(update={"folder": folder / documents.folder.expanduser(), "index": index})


def check(path: Path, root: yaml.Node | None, config: WithDocuments) -> Iterator[ConfigError]:
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
    path: Path, root: yaml.Node | None, config: WithDocuments, name: str, key: str, tasks: tuple[Task, ...]
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
