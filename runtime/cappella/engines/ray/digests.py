"""SHA-256 of the files of weights, kept beside their size and times, so that each is read once."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path

from cappella.config import paths

Digests = Mapping[str, str]
"""By path."""


def of(folders: Iterable[Path]) -> Digests:
    """The digests of all files in these folders. Raises OSError."""
    kept_in = paths.state_dir() / "digests.json"
    kept, found = _read(kept_in), {}
    for path in sorted(path for folder in folders for path in folder.glob("*") if path.is_file()):
        stat = path.stat()
        # A file that was written to has another time of change, which nobody can set.
        version = f"{stat.st_dev}.{stat.st_ino}.{stat.st_size}.{stat.st_mtime_ns}.{stat.st_ctime_ns}"
        known = kept.get(str(path), {})
        found[str(path)] = known if known.get("version") == version else {"version": version, "sha256": _sha256(path)}
    if any(kept.get(path) != each for path, each in found.items()):
        _write(kept_in, {**_read(kept_in), **found})
    return {path: each["sha256"] for path, each in found.items()}


def differences(wanted: Digests, found: Digests) -> list[str]:
    """In words, what of the wanted files is missing, and what is not the same."""
    missing = [f"{path} is missing" for path in wanted if path not in found]
    return missing + [f"{path} has other content" for path in wanted if path in found and found[path] != wanted[path]]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _write(path: Path, kept: Mapping[str, Mapping[str, str]]) -> None:
    # What is not kept is computed again.
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        new.write_text(json.dumps(kept))
        new.replace(path)
