"""Where weights are: a folder, or a hub id that is looked up in the Hugging Face cache and where `cappella pull` puts it.

Nothing here opens a connection.
"""

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from cappella.config import hub_library, incomplete, paths

MAIN = "main"
PULLED = ".pulled.json"
"""The record of a `cappella pull` that has ended."""
_HUB_NAME = re.compile(r"([A-Za-z0-9][\w.-]*/[\w.-]+)(?:@((?!.*\.\.)[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class HubName:
    """A model on the hub; `revision` is a branch, a tag or a commit, and None stands for the newest."""

    hub_id: str
    revision: str | None = None

    def __str__(self) -> str:
        return f"{self.hub_id}@{self.revision}" if self.revision else self.hub_id

    @property
    def folder(self) -> Path:
        """Where `cappella pull` puts it."""
        # Branches may have slashes in their names.
        return paths.models_dir() / (f"{self.hub_id}@{quote(self.revision, safe='')}" if self.revision else self.hub_id)


def hub_name(text: str) -> HubName | None:
    """The model that `owner/name` or `owner/name@revision` names; None for any other text."""
    matched = _HUB_NAME.fullmatch(text)
    return HubName(matched[1], matched[2]) if matched else None


def locate(text: str, home: Path) -> Path:
    """The folder of the weights that a config in the folder `home` names, whether it exists or not.

    A folder that exists is taken, then the hub's models. Raises ValueError for the home of an unknown user.
    """
    path = below(home, text)
    name = hub_name(text)
    if path.exists() or name is None:
        return _snapshot_in(path) or path
    return found(name) or name.folder


def below(home: Path, text: str) -> Path:
    """The path that a text in a config in this folder means. Raises ValueError for the home of an unknown user."""
    try:
        return home / Path(text).expanduser()
    except RuntimeError as error:
        raise ValueError(f"{text!r} is below the home of a user who does not exist") from error


def found(name: HubName) -> Path | None:
    """The folder of a model of the hub on this machine, a complete one if there is one; None if there is none."""
    snapshot = cached(name)
    if snapshot and not incomplete.reason(snapshot):
        return snapshot
    # What a pull has repaired: the same commit.
    return _pulled(name) or (snapshot and _pulled(HubName(name.hub_id, snapshot.name))) or snapshot


def _pulled(name: HubName) -> Path | None:
    """The folder that `cappella pull` made for this revision, or for the newest one that was this commit."""
    if name.folder.is_dir():
        return name.folder
    newest = HubName(name.hub_id).folder
    try:
        return newest if json.loads((newest / PULLED).read_text())["revision"] == name.revision else None
    except (OSError, ValueError, LookupError, TypeError):
        return None


def named_by(folder: Path) -> HubName | None:
    """The model of the hub that a folder holds, or would hold, by its place; None for a folder of the user's own."""
    if hub_library.is_snapshot(folder):
        return HubName(hub_library.hub_id(folder.parents[1]), folder.name)
    if folder.is_relative_to(paths.models_dir()):
        return hub_name(unquote(folder.relative_to(paths.models_dir()).as_posix()))
    return None


def cache_dir() -> Path:
    """The Hugging Face cache: `HF_HUB_CACHE`, or the one in `HF_HOME`."""
    try:
        hub_library.prepare_import()
        from huggingface_hub import constants
    except ImportError:
        home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
        return Path(os.environ.get("HF_HUB_CACHE") or Path(home, "hub")).expanduser()
    return Path(constants.HF_HUB_CACHE)


def cached_revisions(hub_id: str) -> list[str]:
    """The commits of a model that the Hugging Face cache has, complete or not."""
    snapshots = hub_library.repository(hub_id, cache_dir()) / "snapshots"
    return sorted(each.name for each in snapshots.iterdir()) if snapshots.is_dir() else []


def cached(name: HubName, cache: Path | None = None) -> Path | None:
    """The snapshot that `refs` names for a revision, or that a commit is; None if there is none."""
    try:
        hub_library.prepare_import()
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError
    except ImportError:
        return None
    try:
        return Path(
            snapshot_download(
                name.hub_id,
                revision=name.revision,
                cache_dir=cache or cache_dir(),
                local_files_only=True,
                allow_patterns="config.json",
            )
        )
    except IncompleteSnapshotError as error:
        return Path(error.snapshot_path)
    except (LocalEntryNotFoundError, HFValidationError, OSError):
        return None


def _snapshot_in(path: Path) -> Path | None:
    """The newest snapshot in a model's folder of a Hugging Face cache; None for any other folder."""
    if not hub_library.is_repository(path):
        return None
    return cached(HubName(hub_library.hub_id(path), MAIN), path.absolute().parent)
