"""What an index stores of a file and of a passage."""

from dataclasses import dataclass

from cappella.tools.documents.cutting import Cut
from cappella.tools.documents.folder import FoundFile


@dataclass(frozen=True, slots=True)
class StoredFile:
    """What is known of a file that was read; `problem` is why it has no passages.

    After so many `tries` it was not read, but may be by the next.
    """

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: str
    device: str
    tries: int
    digest: bytes
    problem: str | None
    is_cut: bool

    def is_of(self, file: FoundFile) -> bool:
        """Whether the file looks as it did."""
        times = (self.size_bytes, self.mtime_ns, self.ctime_ns, self.inode)
        return times == (file.size_bytes, file.mtime_ns, file.ctime_ns, str(file.inode))


@dataclass(frozen=True, slots=True)
class StoredPassage(Cut):
    """A passage of the index."""

    id: int
    path: str
    title: str
