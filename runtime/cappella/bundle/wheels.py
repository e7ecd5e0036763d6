"""The wheels of a bundle: gathered by hand or by pip for another machine, and what they say of themselves."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.message import Message
from email.parser import BytesParser
from pathlib import Path

import cappella
from cappella.bundle import wheel_names
from cappella.bundle.contents import Item, is_licence
from cappella.bundle.manifest import Target, check_path
from cappella.config import paths
from cappella.errors import ConfigError

SOURCE = Path(cappella.__file__).parents[2]
OLD_MANYLINUX = ("manylinux1", "manylinux2010", "manylinux2014")
# Zip files know no earlier day: a wheel built twice is the same bytes.
FIRST_DAY_S = "315532800"


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
    """Every wheel of a folder, and Cappella's own. Raises ConfigError for one that the target cannot load."""
    if not folder.is_dir():
        raise ConfigError(str(folder), "there is no such folder", "Name the folder of the wheels, or use --lock")
    wheels = [_read(path, target) for path in sorted(folder.glob("*.whl"))]
    counts = Counter(wheel.name for wheel in wheels)
    if twice := [name for name, count in counts.items() if count > 1]:
        raise ConfigError(str(folder), f"there are two wheels of {twice[0]}", "Leave the one that is to be installed")
    if "cappella" not in counts:
        wheels.append(_read(_own(), target))
    return sorted(wheels, key=lambda wheel: wheel.name)


def downloaded(lock: Path, target: Target, with_dependencies: bool) -> Path:
    """The folder into which pip put what a lock list pins; what it holds already is not fetched again.

    Raises ConfigError with what pip said.
    """
    try:
        wanted = f"{target}{with_dependencies}{lock.read_text()}"
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            str(lock), f"cannot be read ({error})", "Name a list such as scripts/locks/cpu.txt"
        ) from error
    folder = paths.cache_dir() / "wheels" / hashlib.sha256(wanted.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    how = [] if with_dependencies else ["--no-deps"]
    machine = [*(f"--platform={each}" for each in platforms(target)), f"--python-version={target.python}"]
    abis = ["--implementation=cp", f"--abi=cp{target.python.replace('.', '')}", "--abi=abi3", "--abi=none"]
    only = ["--only-binary=:all:", f"--dest={folder}", f"--requirement={lock}"]
    _pip(["download", *how, *machine, *abis, *only], lock, "Mend the list, or gather the wheels and use --wheels")
    return folder


def platforms(target: Target) -> list[str]:
    """pip's names for a machine with this glibc, the newest first."""
    system, _, machine = target.platform.partition("_")
    major, minor = wheel_names.numbers(target.glibc)
    names = [f"manylinux_{major}_{each}_{machine}" for each in range(minor, 4, -1)]
    return [*names, *(f"{old}_{machine}" for old in OLD_MANYLINUX), f"{system}_{machine}"]


def oldest_glibc(wheels: Sequence[Wheel]) -> str:
    """The oldest that all of them can do with; empty if none asks for any."""
    found = [glibc for wheel in wheels if (glibc := wheel_names.glibc(wheel.path.name))]
    return max(found, key=wheel_names.numbers, default="")


def _read(path: Path, target: Target) -> Wheel:
    try:
        name, version = wheel_names.split(path.name)
        fits = wheel_names.fits(path.name, target)
        with zipfile.ZipFile(path) as archive:
            metadata = next(each for each in archive.namelist() if each.endswith(".dist-info/METADATA"))
            said = BytesParser().parsebytes(archive.read(metadata))
            files = dict(_licence_files(archive, metadata.removesuffix("METADATA")))
    except (OSError, ValueError, StopIteration, zipfile.BadZipFile) as error:
        raise ConfigError(str(path), f"is no whole wheel ({error})", "Take it away, or gather it once more") from error
    if not fits:
        problem = f"is not for {target.platform}, Python {target.python}, glibc {target.glibc}"
        raise ConfigError(str(path), problem, "Gather one that is, or name the far side: --platform, --python, --glibc")
    expression = str(said.get("License-Expression") or "")
    return Wheel(path, name, version, expression or _licence(said), bool(expression), files)


def _licence_files(archive: zipfile.ZipFile, folder: str) -> Iterator[tuple[str, bytes]]:
    for info in archive.infolist():
        inside = info.filename.removeprefix(folder)
        if info.filename.startswith(folder) and not info.is_dir():
            if inside.startswith(("licenses/", "license_files/")):
                yield inside.partition("/")[2], archive.read(info)
            elif is_licence(inside):
                yield inside, archive.read(info)


def _licence(said: Message) -> str:
    """Of the older fields, what is short; the licence itself may stand there."""
    named = [each.split(" :: ")[-1] for each in said.get_all("Classifier", []) if each.startswith("License ::")]
    old = str(said.get("License") or "")
    return old if 0 < len(old) < 80 else " and ".join(named)


def _own() -> Path:
    """A wheel of this Cappella, from its source tree. Raises ConfigError where there is none."""
    if not (SOURCE / "pyproject.toml").is_file():
        problem = "is no source tree, so that no wheel of Cappella can be built"
        raise ConfigError(str(SOURCE), problem, "Put Cappella's wheel beside the others, and use --wheels")
    folder = paths.cache_dir() / "wheels" / "own"
    # setuptools writes beside what it builds, and the tree is not ours to write into.
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        shutil.copytree(
            SOURCE / "runtime", tree / "runtime", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(SOURCE / name, tree)
        _pip(
            ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(tree)], SOURCE, "Mend the tree"
        )
    return folder / f"cappella-{cappella.__version__}-py3-none-any.whl"


def _pip(arguments: Sequence[str], place: Path, mend: str) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": FIRST_DAY_S, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [sys.executable, "-m", "pip", *arguments]
    done = subprocess.run(command, env=environment, stdout=sys.stderr, stderr=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        said = done.stderr.strip().splitlines() or [f"pip ended with {done.returncode}"]
        raise ConfigError(str(place), said[-1].removeprefix("ERROR: "), mend)
