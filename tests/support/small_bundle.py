"""Small deployments and wheels for bundle tests, and the command line."""

import base64
import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cappella.bundle import build, page_libraries
from cappella.bundle.build import BundleOptions
from cappella.version import __version__
from support.real_deployment import ROOT
from support.weights_folder import write_model

PAGE_LIBRARIES = (ROOT / "runtime" / page_libraries.FOLDER / "manifest.json").read_text()

CARD = {
    "hub_id": "maker/ann",
    "revision": "a" * 40,
    "licence": "apache-2.0",
    "gated": False,
    "context_tokens": 4096,
    "parameters": 1,
    "weight_bytes": 2,
    "sampling": {"temperature": 0.3},
    "tool_parser": "hermes",
    "reasoning_parser": None,
    "images": False,
    "config": {},
    "quirks": [],
    "unconfirmed": [],
    "sources": [],
}


def deployment(folder: Path, **model: Any) -> Path:
    """A config with one model, and the files that it names."""
    weights = write_model(folder / "ann")
    (weights / "LICENSE").write_text("Do as you like.")
    (weights / "pytorch_model.bin").write_text("a pickle, which stays at home")
    path = folder / "c.yaml"
    models = {"ann": {"weights": "ann", "max_model_len": 64, "kv_cache_bytes": "1MiB", **model}}
    path.write_text(json.dumps({"models": models, "ensembles": {"default": {"panel": ["ann"], "judge": "ann"}}}))
    return path


def write_wheel(
    folder: Path,
    name: str,
    version: str = "1.0",
    tag: str = "py3-none-any",
    more: Mapping[str, str] | None = None,
    **metadata: str,
) -> Path:
    """A wheel that pip can install: one module with its version, and `more` files."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    headers = "".join(f"{key.replace('_', '-')}: {value}\n" for key, value in metadata.items())
    files = {
        f"{name}.py": f"version = {version!r}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\n{headers}",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/licenses/LICENSE": f"The licence of {name}.\n",
        **(more or {}),
    }
    path = folder / f"{name}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for each, text in files.items():
            # Without a time of its own a file has the clock's: the same wheel would have two hashes.
            archive.writestr(zipfile.ZipInfo(each), text)
        record = "".join(_record(files)) + f"{info}/RECORD,,\n"
        archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), record)
    return path


def _record(files: Mapping[str, str]) -> list[str]:
    hashes = {name: hashlib.sha256(text.encode()).digest() for name, text in files.items()}
    return [
        f"{name},sha256={base64.urlsafe_b64encode(found).decode().rstrip('=')},{len(files[name])}\n"
        for name, found in hashes.items()
    ]


def wheels(folder: Path) -> Path:
    """A folder with a stand-in for Cappella's wheel, which names the page's libraries, and another wheel."""
    write_wheel(folder, "cappella", __version__, more={f"{page_libraries.FOLDER}/manifest.json": PAGE_LIBRARIES})
    write_wheel(folder, "tune", License_Expression="MIT")
    return folder


def bundled(folder: Path, **options: Any) -> Path:
    """A bundle of a small deployment."""
    out = folder / "out"
    build.make(deployment(folder), out, BundleOptions(wheels(folder / "wheels"), **options))
    return out


def rewrite(bundle: Path, change: Any) -> None:
    """Change a bundle's manifest as a forger would."""
    path = bundle / "manifest.json"
    raw = json.loads(path.read_text())
    change(raw)
    path.write_text(json.dumps(raw))
