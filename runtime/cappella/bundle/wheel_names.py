"""What the name of a wheel says: the package, its version, and which machines it is for."""

import re

from cappella.bundle.manifest import Target

_NAME = re.compile(
    r"(?P<name>[^-/]+)-(?P<version>[^-]+)(-\d[^-]*)?-(?P<python>[^-]+)-(?P<abi>[^-]+)-(?P<platform>[^-]+)\.whl"
)
_OLD_MANYLINUX = {"manylinux1": "2.5", "manylinux2010": "2.12", "manylinux2014": "2.17"}


def split(path: str) -> tuple[str, str]:
    """The package's name as it is compared, and its version. Raises ValueError for what is no wheel."""
    match = _match(path)
    return re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"].replace("_", "-")


def pin(path: str) -> str:
    """As a line of requirements. Raises ValueError."""
    return "==".join(split(path))


def fits(path: str, target: Target) -> bool:
    """Whether the target's Python can load it. Raises ValueError."""
    match, (major, minor) = _match(path), numbers(target.python)
    abis, pythons = match["abi"].split("."), match["python"].split(".")
    system, _, machine = target.platform.partition("_")
    here = any(each == "any" or re.fullmatch(f"(many)?{system}.*_{machine}", each) for each in _platforms(path))
    old_enough = numbers(glibc(path) or "0") <= numbers(target.glibc or "0")
    return here and old_enough and any(_python_fits(python, abi, major, minor) for python in pythons for abi in abis)


def glibc(path: str) -> str:
    """The oldest glibc that a wheel can do with, or nothing if it does not say. Raises ValueError."""
    versions = [_glibc(each) for each in _platforms(path)]
    return "" if "" in versions else min(versions, key=numbers)


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def _platforms(path: str) -> list[str]:
    return _match(path)["platform"].split(".")


def _glibc(platform: str) -> str:
    if found := re.match(r"manylinux_(\d+)_(\d+)_", platform):
        return f"{found[1]}.{found[2]}"
    return _OLD_MANYLINUX.get(platform.split("_")[0], "")


def _python_fits(python: str, abi: str, major: int, minor: int) -> bool:
    match = re.fullmatch(r"(cp|py)(\d)(\d*)", python)
    if match is None or int(match[2]) != major:
        return False
    since = int(match[3] or 0)
    if abi == "abi3" or (abi == "none" and match[1] == "py"):
        return since <= minor
    return since == minor and abi in ("none", f"cp{major}{minor}")


def _match(path: str) -> re.Match[str]:
    match = _NAME.fullmatch(path.rsplit("/", 1)[-1])
    if match is None:
        raise ValueError(f"{path} is not named as a wheel is")
    return match
