"""A config that cannot be read is named once, with the cause and what to do."""

from pathlib import Path

import pytest

from cappella.config import load
from cappella.errors import ConfigError
from cappella.placement import folder


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be read (No such file or directory)"),
        ("folder", "cannot be read (Is a directory)"),
        (b"\xff\xfe", "cannot be read (it is not UTF-8 text)"),
    ],
)
def test_the_file_stands_once_in_the_message(tmp_path: Path, content: bytes | str | None, says: str) -> None:
    path = tmp_path / "c.yaml"
    if content == "folder":
        path.mkdir()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load.load(path)
    assert says in str(caught.value)
    assert str(caught.value).count(str(path)) == 1


@pytest.mark.parametrize(("name", "says"), [("$HOME/qwen", "only ~ is filled in"), ("qwen", "fix the path")])
def test_a_folder_of_weights_that_is_not_there_says_what_may_be_wrong(tmp_path: Path, name: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        folder.inspect("ann", tmp_path / name)
