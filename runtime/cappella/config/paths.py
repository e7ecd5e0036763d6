"""Where a user's own files lie, as XDG's base directories say."""

import os
from pathlib import Path


def state_dir() -> Path:
    """What outlives a restart, and a new version: logs, histories, how long starts took."""
    return _base("XDG_STATE_HOME", ".local/state") / "cappella"


def cache_dir() -> Path:
    """What can be made anew."""
    return _base("XDG_CACHE_HOME", ".cache") / "cappella"


def _base(variable: str, default: str) -> Path:
    """XDG wants a path that is not absolute to be ignored."""
    named = Path(os.environ.get(variable, ""))
    return named if named.is_absolute() else Path.home() / default
