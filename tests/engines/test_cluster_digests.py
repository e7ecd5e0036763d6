"""Digests of weights: each file is read once as long as nothing writes to it."""

import hashlib
import os
from pathlib import Path

import pytest

from cappella.engines.ray import digests


@pytest.fixture(autouse=True)
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "cappella" / "digests.json"


def weights(folder: Path) -> Path:
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")
    return folder


def test_the_digests_are_those_of_the_files_also_when_they_were_kept(tmp_path: Path, state: Path) -> None:
    folder = weights(tmp_path / "w")
    wanted = {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}
    assert digests.of([folder]) == wanted
    assert state.exists()
    assert digests.of([folder]) == wanted


def test_a_file_that_was_written_to_is_read_again_though_its_size_and_time_are_the_same(tmp_path: Path) -> None:
    folder = weights(tmp_path / "w")
    before, path = digests.of([folder]), folder / "model.safetensors"
    stat = path.stat()
    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert digests.differences(before, digests.of([folder])) == [f"{path} has other content"]


def test_a_missing_file_is_told_and_one_more_is_none_of_our_business(tmp_path: Path) -> None:
    folder = weights(tmp_path / "w")
    before = digests.of([folder])
    (folder / "config.json").unlink()
    (folder / "README.md").write_text("more")
    assert digests.differences(before, digests.of([folder])) == [f"{folder / 'config.json'} is missing"]


@pytest.mark.parametrize("kept", ["", "[]", "{", "null"])
def test_a_damaged_file_of_kept_digests_is_made_anew(tmp_path: Path, state: Path, kept: str) -> None:
    folder = weights(tmp_path / "w")
    wanted = digests.of([folder])
    state.write_text(kept)
    assert digests.of([folder]) == wanted
