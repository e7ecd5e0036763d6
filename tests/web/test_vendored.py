"""Other people's libraries in the page: the files that the manifest names, unchanged, with their licences."""

import hashlib
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
VENDOR = ROOT / "runtime" / "cappella" / "gateway" / "web" / "assets" / "vendor"
MANIFEST = json.loads((VENDOR / "manifest.json").read_text())
MAX_BYTES = 900_000
LICENCES = {"MIT": "Permission is hereby granted, free of charge", "BSD-3-Clause": "Redistribution and use in source"}


def test_the_manifest_names_every_file_and_its_sha256() -> None:
    named = {f"{folder}/{name}": digest for folder, each in MANIFEST.items() for name, digest in each["sha256"].items()}
    files = [path for path in VENDOR.rglob("*") if path.is_file() and path.name != "manifest.json"]
    found = {path.relative_to(VENDOR).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    assert found == named
    assert sum(path.stat().st_size for path in files) < MAX_BYTES


@pytest.mark.parametrize("folder", MANIFEST)
def test_each_library_has_its_version_and_its_licence(folder: str) -> None:
    library = MANIFEST[folder]
    assert re.fullmatch(r"\d+\.\d+\.\d+", library["version"])
    assert LICENCES[library["licence"]] in (VENDOR / folder / library["licence_file"]).read_text()
    main = max((VENDOR / folder).glob("*.js"), key=lambda path: path.stat().st_size)
    assert library["version"] in main.read_text()


def test_no_library_leads_elsewhere_or_makes_code_from_text() -> None:
    # Nothing fetches them: namespaces of MathML and SVG, and the address in an error of highlight.js.
    names = {"http://www.w3.org", "https://github.com"}
    for path in VENDOR.rglob("*.js"):
        text = path.read_text()
        # KaTeX's parser has a method `fetch(){`.
        assert not re.findall(
            r"\beval\(|new Function\(|importScripts|XMLHttpRequest|(?<![.\w])fetch\((?!\)\{)", text
        ), path.name
        assert set(re.findall(r"https?://[\w.]+", text)) <= names, path.name


def test_the_licences_are_in_the_wheel() -> None:
    assert "vendor/*/LICENSE.txt" in (ROOT / "pyproject.toml").read_text()
