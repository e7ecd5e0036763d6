"""Other people's JavaScript in Cappella's wheel, by the manifest that lies beside it."""

import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

FOLDER = "cappella/gateway/web/assets/vendor"


@dataclass(frozen=True, slots=True)
class PageLibrary:
    """A package of npm: its licence as an SPDX expression, and the SHA-256 of each of its files in the wheel."""

    package: str
    version: str
    licence: str
    files: Mapping[str, str]


def of(wheel: Path) -> list[PageLibrary]:
    """Those in Cappella's wheel; one without a manifest has none."""
    with zipfile.ZipFile(wheel) as archive:
        if f"{FOLDER}/manifest.json" not in archive.namelist():
            return []
        libraries = json.loads(archive.read(f"{FOLDER}/manifest.json"))
    return [
        PageLibrary(
            each["package"],
            each["version"],
            each["licence"],
            {f"{FOLDER}/{folder}/{name}": sha256 for name, sha256 in each["sha256"].items()},
        )
        for folder, each in libraries.items()
    ]
