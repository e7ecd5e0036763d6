"""Folders of a user's own files, by the XDG Base Directory Specification."""

import os
from pathlib import Path


def state_dir() -> Path:
    """The folder of state that survives restarts and upgrades: logs, histories, start times."""
    return _base("XDG_STATE_HOME", ".local/state") / "cappella"


def cache_dir() -> Path:
    """The folder of files that can be made again."""
    return _base("XDG_CACHE_HOME", ".cache") / "cappella"


def models_dir() -> Path:
    """The folder where `cappella pull` puts weights: `CAPPELLA_MODELS`, or one in the user's data."""
    named = os.environ.get("CAPPELLA_MODELS")
    return Path(named).expanduser().absolute() if named else _base("XDG_DATA_HOME", ".local/share") / "cappella/models"


def _base(variable: str, default: str) -> Path:
    """The specification requires relative paths to be ignored."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / default
