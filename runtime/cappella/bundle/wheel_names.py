"""The package and the version in a wheel's name, for the install side: standard library only."""

import re

_NAME = re.compile(r"(?P<name>[^-/]+)-(?P<version>[^-]+)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl")


def pin(path: str) -> str:
    """The wheel as a pinned requirement. Raises ValueError for another file name."""
    match = _NAME.fullmatch(path.rsplit("/", 1)[-1])
    if match is None:
        raise ValueError(f"{path} is not named as a wheel is")
    return f"{re.sub(r'[-_.]+', '-', match['name']).lower()}=={match['version'].replace('_', '-')}"


def numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
