"""The wheel of this Cappella: built from its source tree, or put together again from the installed package."""

import base64
import hashlib
import shutil
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path

import cappella
from cappella.bundle import pip
from cappella.config import paths
from cappella.errors import ConfigError, cause

SOURCE = Path(cappella.__file__).parents[2]
WRITTEN_BY_PIP = {"INSTALLER", "REQUESTED", "RECORD", "direct_url.json"}
HINT = "Install it again, or put Cappella's wheel into the folder for --wheels"


def made() -> Path:
    """The path of the wheel, in the cache. Raises ConfigError if it cannot be made."""
    folder = paths.cache_dir() / "wheels" / "own"
    wheel = folder / f"cappella-{cappella.__version__}-py3-none-any.whl"
    if (SOURCE / "pyproject.toml").is_file():
        _build(folder)
    else:
        folder.mkdir(parents=True, exist_ok=True)
        _pack_installed(wheel)
    return wheel


def _build(folder: Path) -> None:
    # setuptools writes beside its sources, and the source tree must stay unchanged.
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch, "tree")
        shutil.copytree(
            SOURCE / "runtime", tree / "runtime", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
        )
        for name in ("pyproject.toml", "README.md", "LICENSE"):
            shutil.copy(SOURCE / name, tree)
        build = ["wheel", "--no-deps", "--no-build-isolation", f"--wheel-dir={folder}", str(tree)]
        pip.run(build, SOURCE, "Fix the source tree")


def _pack_installed(wheel: Path) -> None:
    """Every file that the package's RECORD has with a hash, and a RECORD of those."""
    try:
        files = metadata.distribution("cappella").files or []
    except metadata.PackageNotFoundError:
        raise ConfigError(str(SOURCE), "Cappella is neither a source tree nor installed there", HINT) from None
    kept = [each for each in files if each.hash and each.parts[0] != ".." and each.name not in WRITTEN_BY_PIP]
    record = next((str(each) for each in files if each.name == "RECORD"), "")
    if not record:
        raise ConfigError(str(SOURCE), "the list of Cappella's installed files is missing", HINT)
    contents = {str(each): _checked(each) for each in sorted(kept, key=str)}
    lines = [f"{each},sha256={each.hash.value},{each.size}" for each in kept if each.hash]
    contents[record] = "\n".join([*sorted(lines), f"{record},,", ""]).encode()
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, content in contents.items():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


def _checked(file: metadata.PackagePath) -> bytes:
    """The content of an installed file. Raises ConfigError if it is not what was installed."""
    path = Path(str(file.locate()))
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ConfigError(str(path), f"cannot be read ({cause(error)})", HINT) from error
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    if file.hash and digest != file.hash.value:
        raise ConfigError(str(path), "was changed since it was installed", HINT)
    return content
