"""A config that cannot be read is named once, with the cause and what to do."""

from pathlib import Path

import pytest

from cappella.config import load
from cappella.errors import ConfigError


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
