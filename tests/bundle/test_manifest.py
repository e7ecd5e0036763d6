"""A manifest that leads out of its folder, or that contradicts itself, is refused before anything is read by it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cappella.bundle import manifest
from cappella.bundle.manifest import File, Manifest, Target
from cappella.errors import ConfigError

SHA256 = "0" * 64
GOOD = Manifest("0.1.0", Target("linux_x86_64", "3.11", "2.28"), (File("weights/ann/x", 2, SHA256, "weights"),))
PART = {"path": "weights/ann/x.part0001", "size_bytes": 2, "sha256": SHA256}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    text = manifest.write(tmp_path, GOOD)
    assert manifest.read(tmp_path) == (GOOD, text)
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "path",
    [
        "../x",
        "weights/../../x",
        "/etc/passwd",
        "weights//x",
        "weights/./x",
        "weights/..",
        "weights/a\\..\\x",
        "weights/a\nb",
        "weights/a\0b",
        "weights/",
        "weights",
        "wheels/x.whl",
        "manifest.json",
        "",
        7,
        "weights/" + "a" * 256,
    ],
)
def test_a_path_that_leaves_its_folder_is_refused(tmp_path: Path, path: Any) -> None:
    refused(tmp_path, lambda raw: raw["files"][0].update(path=path))


def with_parts(*parts: dict[str, Any]) -> Callable[[Any], None]:
    return lambda raw: raw["files"][0].update(parts=list(parts))


@pytest.mark.parametrize(
    "change",
    [
        lambda raw: raw.update(more=1),
        lambda raw: raw.pop("target"),
        lambda raw: raw["target"].update(glibc=None),
        lambda raw: raw["files"].append(raw["files"][0]),
        lambda raw: raw["files"].append("weights/ann/y"),
        lambda raw: raw["files"][0].update(role="program"),
        lambda raw: raw["files"][0].update(size_bytes=-1),
        lambda raw: raw["files"][0].update(size_bytes=True),
        lambda raw: raw["files"][0].update(size_bytes=2.0),
        lambda raw: raw["files"][0].update(sha256="0" * 63 + "G"),
        with_parts({**PART, "size_bytes": 3}),
        with_parts({**PART, "path": "weights/ann/y.part0001"}),
        with_parts({**PART, "path": "../x.part0001"}),
        with_parts({**PART, "size_bytes": 1}, {**PART, "size_bytes": 1}),
        with_parts({**PART, "size_bytes": -1}, {**PART, "path": "weights/ann/x.part0002", "size_bytes": 3}),
    ],
)
def test_a_manifest_that_contradicts_itself_is_refused(tmp_path: Path, change: Callable[[Any], None]) -> None:
    refused(tmp_path, change)


def refused(folder: Path, change: Callable[[Any], None]) -> None:
    raw = json.loads(GOOD.text())
    change(raw)
    (folder / "manifest.json").write_text(json.dumps(raw))
    with pytest.raises(ConfigError, match="is not a manifest"):
        manifest.read(folder)


def test_another_format_names_itself(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(GOOD.text().replace('"format": 1', '"format": 2'))
    with pytest.raises(ConfigError, match=r"has format 2.* reads 1"):
        manifest.read(tmp_path)


@given(text=st.one_of(st.binary(), st.sampled_from([b"[" * 100_000, b"null", b"\xff", b"[]", b'{"format": 1}'])))
def test_no_bytes_make_anything_but_a_config_error(tmp_path_factory: pytest.TempPathFactory, text: bytes) -> None:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "manifest.json").write_bytes(text)
    with pytest.raises(ConfigError):
        manifest.read(folder)


def test_a_link_in_its_place_is_refused(tmp_path: Path) -> None:
    manifest.write(tmp_path / "elsewhere", GOOD)
    (tmp_path / "manifest.json").symlink_to(tmp_path / "elsewhere" / "manifest.json")
    with pytest.raises(ConfigError, match="a symbolic link"):
        manifest.read(tmp_path)
