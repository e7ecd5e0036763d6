"""A bundle with anything bad, missing or extra is found, and the file is named."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cappella.bundle.verify import verify
from cappella.errors import ConfigError
from support.command_line import cappella
from support.small_bundle import bundled, rewrite

WEIGHTS = "weights/ann/model.safetensors"


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_whole_bundle_is_told_so(tmp_path: Path) -> None:
    done = cappella("verify", bundled(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "match the manifest" in done.stdout


@pytest.mark.parametrize(
    ("harm", "path", "says"),
    [
        (flip, WEIGHTS, "its SHA-256"),
        (flip, "wheels/tune-1.0-py3-none-any.whl", "its SHA-256"),
        (flip, "config/config.yaml", "its SHA-256"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), WEIGHTS, "bytes"),
        (lambda path: path.unlink(), WEIGHTS, "is missing"),
        (lambda path: path.write_text("x"), "weights/ann/extra.safetensors", "is not in the manifest"),
        (lambda path: path.write_text("x"), "README", "is not in the manifest"),
        (lambda path: path.symlink_to("/etc/passwd"), "config/link.yaml", "is a symbolic link"),
        (lambda path: path.symlink_to("/etc"), "config/link", "is a symbolic link"),
        (os.mkfifo, "config/pipe", "is neither a file nor a folder"),
    ],
)
def test_the_file_that_is_wrong_is_named(tmp_path: Path, harm: Callable[[Path], None], path: str, says: str) -> None:
    bundle = bundled(tmp_path)
    harm(bundle / path)
    with pytest.raises(ConfigError, match=says) as raised:
        verify(bundle)
    assert str(bundle / path) in str(raised.value)


def test_a_file_that_became_a_link_to_itself_elsewhere_is_refused(tmp_path: Path) -> None:
    bundle = bundled(tmp_path)
    (bundle / WEIGHTS).rename(tmp_path / "elsewhere")
    (bundle / WEIGHTS).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match="is a symbolic link"):
        verify(bundle)


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path) -> None:
    bundle = bundled(tmp_path)
    flip(bundle / WEIGHTS)
    done = cappella("verify", bundle)
    assert done.returncode == 2
    assert WEIGHTS in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_folder_that_is_no_bundle_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        verify(tmp_path)


def test_parts_are_checked_one_by_one_as_they_arrive(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = tmp_path / "ann"
    weights.mkdir()
    (weights / "merges.txt").write_bytes(os.urandom(5 << 19))
    bundle = bundled(tmp_path, part_bytes=1 << 20)
    parts = sorted((bundle / "weights" / "ann").glob("merges.txt.part*"))
    assert [part.stat().st_size for part in parts] == [1 << 20, 1 << 20, 1 << 19]
    verify(bundle)
    parts[1].rename(tmp_path / "kept")
    with pytest.raises(ConfigError, match=r"merges\.txt\.part0002: is missing \(1 in all\)"):
        verify(bundle)
    verify(bundle, partial=True)
    assert "1 are missing" in capsys.readouterr().out
    flip(parts[2])
    with pytest.raises(ConfigError, match=r"part0003: its SHA-256"):
        verify(bundle, partial=True)


def test_right_parts_of_a_wrong_whole_are_found(tmp_path: Path) -> None:
    weights = tmp_path / "ann"
    weights.mkdir()
    (weights / "merges.txt").write_bytes(os.urandom(5 << 19))
    bundle = bundled(tmp_path, part_bytes=1 << 20)
    rewrite(bundle, lambda raw: [each.update(sha256="0" * 64) for each in raw["files"] if each["parts"]])
    with pytest.raises(ConfigError, match="joined they are a different file"):
        verify(bundle)
