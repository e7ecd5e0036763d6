"""Archives of a release: two builds of the same files are equal bytes."""

import io
import tarfile
from pathlib import Path

import same_bytes

TIME_S = 1_700_000_000


def built(path: Path, names: tuple[str, ...], now_s: float, owner: str) -> Path:
    """As setuptools writes one: with the times of a build, in fractions of a second, and its user."""
    with tarfile.open(path, "w:gz") as archive:
        for name in names:
            member = tarfile.TarInfo(f"cappella-1/{name}")
            member.size, member.mtime, member.uname, member.uid = len(name), now_s, owner, len(owner)
            member.pax_headers = {"mtime": str(now_s)}
            archive.addfile(member, io.BytesIO(name.encode()))
    return path


def test_archives_of_the_same_files_are_equal_bytes(tmp_path: Path) -> None:
    one = built(tmp_path / "one.tar.gz", ("PKG-INFO", "setup.cfg"), 1.5, "ann")
    two = built(tmp_path / "two.tar.gz", ("setup.cfg", "PKG-INFO"), 99.25, "robert")
    assert one.read_bytes() != two.read_bytes()
    for each in (one, two):
        same_bytes.repack(each, TIME_S)
    assert one.read_bytes() == two.read_bytes()
    assert sorted(tmp_path.iterdir()) == [one, two]


def test_what_is_in_an_archive_stays(tmp_path: Path) -> None:
    path = built(tmp_path / "one.tar.gz", ("PKG-INFO", "setup.cfg"), 1.5, "ann")
    same_bytes.repack(path, TIME_S)
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert [each.name for each in members] == ["cappella-1/PKG-INFO", "cappella-1/setup.cfg"]
        assert {(each.mtime, each.uid, each.uname) for each in members} == {(TIME_S, 0, "")}
        file = archive.extractfile(members[0])
        assert file is not None
        assert file.read() == b"PKG-INFO"
