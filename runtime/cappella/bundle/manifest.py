"""The manifest of a bundle: every file with its size and SHA-256, and the target machine.

This module, verifying.py and installing.py use only the standard library, since they run from the bundle's
wheel on a machine where nothing else is installed yet.
"""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cappella.errors import ConfigError, cause

FORMAT = 1
NAME = "manifest.json"
SIGNATURE_NAME = "manifest.json.sig"
ROLES = {"weights": "weights", "wheel": "wheels", "config": "config", "licence": "licences", "sbom": "sbom"}
"""The folder of each role: a file's path begins with it."""
PARTIAL = ".partial"
"""Suffix of an unfinished file; no file of a bundle has it."""
CONFIG_PATH = "config/config.yaml"
SIZE_LIMIT_BYTES = 64 << 20

_SHA256 = re.compile(r"[0-9a-f]{64}")
_PATH_PART = re.compile(r"(?!\.{1,2}$)[^/\\\x00-\x1f\x7f]{1,255}")


@dataclass(frozen=True, slots=True)
class Stored:
    """One file as stored in the bundle."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class File:
    """One file as it will be used. If it has `parts`, the bundle stores those instead, to be joined."""

    path: str
    size_bytes: int
    sha256: str
    role: str
    parts: tuple[Stored, ...] = ()

    @property
    def stored(self) -> tuple[Stored, ...]:
        return self.parts or (Stored(self.path, self.size_bytes, self.sha256),)


@dataclass(frozen=True, slots=True)
class Target:
    """The machine that a bundle is for; `glibc` is the oldest version that its wheels support, or empty for any."""

    platform: str
    python: str
    glibc: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    cappella: str
    target: Target
    files: tuple[File, ...]

    @property
    def stored(self) -> Iterator[Stored]:
        """Every file stored in the bundle, without the manifest."""
        return (stored for file in self.files for stored in file.stored)

    @property
    def size_bytes(self) -> int:
        return sum(file.size_bytes for file in self.files)

    def of(self, role: str) -> list[File]:
        return [file for file in self.files if file.role == role]

    def text(self) -> str:
        """The manifest as JSON; equal for equal content."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"


def part_path(path: str, number: int) -> str:
    """Path of a part of a file; numbers start at 1."""
    return f"{path}.part{number:04d}"


def read(bundle: Path) -> tuple[Manifest, bytes]:
    """The manifest, and its bytes as signed. Raises ConfigError for an invalid one."""
    path = bundle / NAME
    try:
        if path.is_symlink():
            raise ValueError("a symbolic link")
        if path.stat().st_size > SIZE_LIMIT_BYTES:
            raise ValueError("larger than any manifest")
        text = path.read_bytes()
        raw = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        hint = "Name the folder of a bundle. An unfinished one has no manifest: make it again, finished files are kept"
        raise ConfigError(str(path), f"cannot be read ({cause(error)})", hint) from error
    if isinstance(raw, dict) and raw.get("format") != FORMAT:
        problem = f"has format {raw.get('format')!r}, but this Cappella reads {FORMAT}"
        raise ConfigError(str(path), problem, "Use the Cappella wheel of the bundle")
    try:
        manifest = _manifest(raw)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(
            str(path), f"is not a manifest ({error})", "Copy the bundle again, or make it again"
        ) from error
    return manifest, text


def write(bundle: Path, manifest: Manifest) -> bytes:
    """Write the manifest atomically; returns its bytes."""
    text = manifest.text().encode()
    write_atomically(bundle / NAME, text)
    return text


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file completely, flushed to the disk, or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + PARTIAL)
    with partial.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def check_path(path: Any) -> str:
    """The path, if it cannot leave its folder. Raises ValueError."""
    if not isinstance(path, str) or not all(_PATH_PART.fullmatch(part) for part in path.split("/")):
        raise ValueError(f"the path {path!r} is not plain and relative")
    return path


def _manifest(raw: Any) -> Manifest:
    fields = _fields(raw, "the manifest", {"format": int, "cappella": str, "target": dict, "files": list})
    target = _fields(fields["target"], "target", {"platform": str, "python": str, "glibc": str})
    manifest = Manifest(fields["cappella"], Target(**target), tuple(_file(each) for each in fields["files"]))
    seen: set[str] = set()
    for path in [path for file in manifest.files for path in {file.path, *(part.path for part in file.parts)}]:
        if path in seen:
            raise ValueError(f"{path} appears twice")
        seen.add(path)
    return manifest


def _file(raw: Any) -> File:
    types = {"path": str, "size_bytes": int, "sha256": str, "role": str, "parts": list}
    fields = _fields(raw, "a file", types)
    parts = tuple(_stored(part) for part in fields.pop("parts"))
    file = File(**fields, parts=parts)
    _check(file.path, file.size_bytes, file.sha256)
    if file.path.split("/")[0] != ROLES.get(file.role) or "/" not in file.path:
        raise ValueError(f"{file.path} is not in the folder of role {file.role!r}")
    if parts and sum(part.size_bytes for part in parts) != file.size_bytes:
        raise ValueError(f"the parts of {file.path} have another size than the file")
    for number, part in enumerate(parts, 1):
        if part.path != part_path(file.path, number):
            raise ValueError(f"{part.path} is not part {number} of {file.path}")
    return file


def _stored(raw: Any) -> Stored:
    stored = Stored(**_fields(raw, "a part", {"path": str, "size_bytes": int, "sha256": str}))
    _check(stored.path, stored.size_bytes, stored.sha256)
    return stored


def _check(path: str, size_bytes: int, sha256: str) -> None:
    check_path(path)
    if size_bytes < 0 or not _SHA256.fullmatch(sha256):
        raise ValueError(f"{path} has an impossible size or SHA-256")


def _fields(raw: Any, place: str, types: Mapping[str, type]) -> dict[str, Any]:
    """Check that the fields and their types are exactly these. Raises ValueError."""
    if not isinstance(raw, dict) or set(raw) != set(types):
        raise ValueError(f"{place} does not have the fields {', '.join(types)}")
    for name, type_ in types.items():
        if type(raw[name]) is not type_:
            raise ValueError(f"{name} of {place} is not a {type_.__name__}")
    return raw
