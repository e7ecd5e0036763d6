"""The wheels of a bundle: from a folder or downloaded by pip for another machine, with their metadata."""

import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

from packaging import tags
from packaging.tags import Tag
from packaging.utils import parse_wheel_filename

from cappella.bundle import locks, own_wheel, pip, wheel_names
from cappella.bundle.contents import Item, is_licence
from cappella.bundle.manifest import Target, check_path
from cappella.config import paths
from cappella.errors import ConfigError, cause

OLD_MANYLINUX = {"manylinux2014": "2.17", "manylinux2010": "2.12", "manylinux1": "2.5"}


@dataclass(frozen=True, slots=True)
class Wheel:
    path: Path
    name: str
    version: str
    licence: str
    is_spdx: bool
    licence_files: Mapping[str, bytes]

    @property
    def items(self) -> Iterator[Item]:
        yield Item(f"wheels/{self.path.name}", "wheel", self.path)
        for name, content in self.licence_files.items():
            yield Item(check_path(f"licences/wheels/{self.name}-{self.version}/{name}"), "licence", content)


def gathered(folder: Path, target: Target) -> list[Wheel]:
    """Every wheel of a folder, and Cappella's. Raises ConfigError for one that the target cannot load."""
    if not folder.is_dir():
        raise ConfigError(str(folder), "there is no such folder", "Name the folder of the wheels, or use --lock")
    wheels = [_read(path, target) for path in sorted(folder.glob("*.whl"))]
    counts = Counter(wheel.name for wheel in wheels)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(str(folder), f"there are two wheels of {twice[0]}", "Keep only one of them")
    if "cappella" not in counts:
        wheels.append(_read(own_wheel.made(), target))
    return sorted(wheels, key=lambda wheel: wheel.name)


def downloaded(name: str, target: Target, with_dependencies: bool) -> Path:
    """Download the wheels of a lock list (see `locks.path_of`) with pip; returns their folder, which is reused.

    Raises ConfigError with pip's message.
    """
    lock = locks.path_of(name)
    try:
        wanted = f"{target}{with_dependencies}{lock.read_text()}"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(lock), f"cannot be read ({cause(error)})", "Name a list of pinned packages") from error
    folder = paths.cache_dir() / "wheels" / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    how = [] if with_dependencies else ["--no-deps"]
    machine = [*(f"--platform={each}" for each in platforms(target)), f"--python-version={target.python}"]
    abis = ["--implementation=cp", f"--abi=cp{target.python.replace('.', '')}", "--abi=abi3", "--abi=none"]
    only = ["--only-binary=:all:", f"--dest={folder}", f"--requirement={lock}"]
    pip.run(["download", *how, *machine, *abis, *only], lock, "Fix the list, or gather the wheels and use --wheels")
    return folder


def platforms(target: Target) -> list[str]:
    """pip's platform names for a machine with this glibc, the newest first."""
    system, _, machine = target.platform.partition("_")
    if not target.glibc:
        return [target.platform]
    major, minor = wheel_names.numbers(target.glibc)
    names = [f"manylinux_{major}_{each}_{machine}" for each in range(minor, 4, -1)]
    return [
        *names,
        *(f"{old}_{machine}" for old, oldest in OLD_MANYLINUX.items() if wheel_names.numbers(oldest) <= (major, minor)),
        f"{system}_{machine}",
    ]


def oldest_glibc(wheels: Sequence[Wheel]) -> str:
    """The oldest glibc that all of them support; empty if any will do."""
    versions = [version for wheel in wheels if (version := glibc(wheel.path.name))]
    return max(versions, key=wheel_names.numbers, default="")


def fits(file_name: str, target: Target) -> bool:
    """Whether the target's Python can load a wheel of this name. Raises ValueError if it is not a wheel name."""
    return not parse_wheel_filename(file_name)[3].isdisjoint(_loadable(target))


def glibc(file_name: str) -> str:
    """The oldest glibc that a wheel supports; empty if its name does not say."""
    platforms = {tag.platform for tag in parse_wheel_filename(file_name)[3]}
    versions = [_glibc_of(platform) for platform in platforms]
    return "" if "" in versions else min(versions, key=wheel_names.numbers)


def _glibc_of(platform: str) -> str:
    if match := re.match(r"manylinux_(\d+)_(\d+)_", platform):
        return f"{match[1]}.{match[2]}"
    return OLD_MANYLINUX.get(platform.split("_")[0], "")


def _loadable(target: Target) -> set[Tag]:
    """Every tag that the target's Python loads."""
    major, minor = wheel_names.numbers(target.python)
    machine = platforms(target)
    return {
        *tags.cpython_tags((major, minor), platforms=machine, abis=[f"cp{major}{minor}"]),
        *tags.compatible_tags((major, minor), interpreter=f"cp{major}{minor}", platforms=machine),
    }


def _read(path: Path, target: Target) -> Wheel:
    try:
        name, version, _, _ = parse_wheel_filename(path.name)
        is_loadable = fits(path.name, target)
        with zipfile.ZipFile(path) as archive:
            metadata_path = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            metadata = BytesParser().parsebytes(archive.read(metadata_path))
            files = dict(_licence_files(archive, metadata_path.removesuffix("METADATA")))
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
        raise ConfigError(str(path), f"is not a complete wheel ({error})", "Remove it, or download it again") from error
    if not is_loadable:
        problem = f"is not for {target.platform}, Python {target.python}, glibc {target.glibc}"
        raise ConfigError(
            str(path), problem, "Use one that is, or name the target machine: --platform, --python, --glibc"
        )
    expression = str(metadata.get("License-Expression") or "")
    return Wheel(path, str(name), str(version), expression or _licence(metadata), bool(expression), files)


def _licence_files(archive: zipfile.ZipFile, folder: str) -> Iterator[tuple[str, bytes]]:
    for info in archive.infolist():
        inside = info.filename.removeprefix(folder)
        if info.filename.startswith(folder) and not info.is_dir():
            if inside.startswith(("licenses/", "license_files/")):
                yield inside.partition("/")[2], archive.read(info)
            elif is_licence(inside):
                yield inside, archive.read(info)


def _licence(metadata: Message) -> str:
    """The licence by the older fields, unless they hold its whole text."""
    named = [each.split(" :: ")[-1] for each in metadata.get_all("Classifier", []) if each.startswith("License ::")]
    old = str(metadata.get("License") or "")
    return old if 0 < len(old) < 80 else " and ".join(named)
