"""The package huggingface_hub: its settings, which it reads as it is imported, and the names of folders in its cache."""

import os
import re
from pathlib import Path

REPOSITORY = "models--"
"""How the folder of a model begins: `models--OWNER--NAME`, with its commits in `snapshots`."""


def prepare_import() -> None:
    """Turn its telemetry off, and its bars, which are for one file: those of `cappella pull` are for all files."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


def is_commit(revision: str | None) -> bool:
    """Whether it names one version of a model for good, as no branch or tag does."""
    return bool(revision and re.fullmatch(r"[0-9a-f]{40}", revision))


def is_repository(folder: Path) -> bool:
    return folder.name.startswith(REPOSITORY) and (folder / "snapshots").is_dir()


def is_snapshot(folder: Path) -> bool:
    """Whether it is a model at one commit in a Hugging Face cache."""
    return folder.parent.name == "snapshots" and folder.parents[1].name.startswith(REPOSITORY)


def hub_id(repository: Path) -> str:
    return repository.name.removeprefix(REPOSITORY).replace("--", "/")


def repository(hub_id: str, cache: Path) -> Path:
    """The folder of a model in a cache."""
    return cache / (REPOSITORY + hub_id.replace("/", "--"))
