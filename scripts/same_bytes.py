"""Makes archives that are equal bytes whenever they are built from equal files."""

import gzip
import tarfile
from pathlib import Path


def repack(archive: Path, time_s: int) -> None:
    """Write a .tar.gz anew: members by name, each of this time and of no owner."""
    again = archive.with_name(f"{archive.name}.again")
    with (
        tarfile.open(archive) as old,
        again.open("wb") as raw,
        # Neither the file's own name nor the time now in its header.
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=time_s) as packed,
        tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda each: each.name):
            new.addfile(_plain(member, time_s), old.extractfile(member) if member.isfile() else None)
    again.replace(archive)


def _plain(member: tarfile.TarInfo, time_s: int) -> tarfile.TarInfo:
    mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
    plain = member.replace(mtime=time_s, mode=mode, uid=0, gid=0, uname="", gname="")
    # The time in fractions of a second; what a name needs is written anew.
    plain.pax_headers = {}
    return plain
