"""A user's own files lie where XDG says."""

from pathlib import Path

import pytest

from cappella.config import paths


@pytest.mark.parametrize("named", ["", "relative/path"])
def test_a_base_directory_that_is_not_absolute_is_ignored(monkeypatch: pytest.MonkeyPatch, named: str) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("XDG_STATE_HOME", named)
    monkeypatch.setenv("XDG_CACHE_HOME", named)
    assert paths.state_dir() == Path("/home/ann/.local/state/cappella")
    assert paths.cache_dir() == Path("/home/ann/.cache/cappella")


def test_a_base_directory_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", "/srv/state")
    assert paths.state_dir() == Path("/srv/state/cappella")
