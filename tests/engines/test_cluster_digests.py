"""Digests of weights: each file is read once as long as nothing writes to it."""

import asyncio
import hashlib
import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from cappella.engines.backends import STARTUP_STAGES
from cappella.engines.ray import digests
from cappella.engines.ray.launcher import RayLauncher
from cappella.engines.ray.order import Order
from support.fake_engines import eventually


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


def test_a_missing_file_is_told_and_one_more_that_no_engine_reads_is_none_of_our_business(tmp_path: Path) -> None:
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


def test_a_file_that_only_the_node_has_and_an_engine_would_read_is_told(tmp_path: Path) -> None:
    folder = weights(tmp_path / "w")
    before = digests.of([folder])
    (folder / "chat_template.jinja").write_text("{{ 1 }}")
    assert digests.differences(before, digests.of([folder])) == [
        f"{folder / 'chat_template.jinja'} is not at the gateway"
    ]


def test_files_in_folders_below_are_compared_and_hidden_ones_are_not(tmp_path: Path) -> None:
    folder = weights(tmp_path / "w")
    for name in ("1_Pooling", ".cache"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text("{}")
    before = digests.of([folder])
    for name in ("1_Pooling", ".cache"):
        (folder / name / "config.json").write_text("{1}")
    (changed,) = digests.differences(before, digests.of([folder]))
    assert "1_Pooling" in changed


class OnceAFileIsKept(threading.Event):
    """Set as soon as the digest of a file was written."""

    def __init__(self, state: Path) -> None:
        super().__init__()
        self._state = state

    def is_set(self) -> bool:
        return self._state.exists()


def test_what_was_read_before_a_start_was_given_up_is_kept(tmp_path: Path, state: Path) -> None:
    folder = weights(tmp_path / "w")
    with pytest.raises(digests.ReadingStopped):
        digests.of([folder], OnceAFileIsKept(state))
    assert list(json.loads(state.read_text())) == [str(folder / "config.json")]


def test_threads_that_write_at_once_lose_no_digest(tmp_path: Path, state: Path) -> None:
    folders = [weights(tmp_path / f"w{number}") for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        found = [path for each in threads.map(lambda folder: digests.of([folder]), folders) for path in each]
    assert len(found) == 32
    assert set(json.loads(state.read_text())) == set(found)
    assert sorted(each.name for each in state.parent.iterdir()) == ["digests.json", "digests.lock"]


async def test_a_launch_that_is_called_off_stops_reading_the_weights(tmp_path: Path) -> None:
    """So that a server that is told to end ends: it waits for its threads."""
    folder = weights(tmp_path / "w")
    with (folder / "large.safetensors").open("wb") as file:
        file.truncate(1 << 40)
    order = Order("", "ann", (), "", [str(folder)], {}, True, 1, 1, 1, ())
    launcher = RayLauncher(order, "auto", {}, lambda _: None, STARTUP_STAGES, [])
    launching = asyncio.create_task(launcher.launch([], tmp_path / "run", tmp_path / "ann.log"))
    assert await eventually(lambda: digests._folder_locks[folder].locked())
    launching.cancel()
    await asyncio.wait({launching})
    assert await eventually(lambda: not digests._folder_locks[folder].locked())
