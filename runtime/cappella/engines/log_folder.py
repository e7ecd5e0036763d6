"""Holds a folder of engine logs for one process, so that no other overwrites its logs or is taken for it."""

import fcntl
import os
from pathlib import Path
from typing import IO

from cappella.errors import ConfigError, cause

# No engine's log can have this name: those begin with a letter or a digit.
_LOCK = "_in_use"


def hold(folder: Path) -> IO[str]:
    """Make the folder and hold it while the returned file is open. Raises ConfigError if another process holds it."""
    try:
        lock = try_to_hold(folder)
    except OSError as error:
        raise ConfigError(
            f"log folder {folder}", f"cannot be used ({cause(error)})", "Name one with --log-dir"
        ) from error
    if lock is None:
        hint = "Give each server its own --log-dir or server.log_dir"
        raise ConfigError(f"log folder {folder}", "another server writes its engines' logs there", hint)
    return lock


def try_to_hold(folder: Path) -> IO[str] | None:
    """As `hold`, but None if another process holds the folder. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.fdopen(os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600), "w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    return lock
