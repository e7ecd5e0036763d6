"""The content of a file as it is written: unless it is kept, nothing is left of it."""

import os
from contextlib import suppress
from typing import BinaryIO

from cappella.batch.folder import Folder


class Content:
    """The content of the file `file_id`, readable only by its owner. For the folder's thread."""

    def __init__(self, folder: Folder, file_id: str) -> None:
        self.id = file_id
        self._part, self._path = folder.part(file_id), folder.content(file_id)
        self._file: BinaryIO | None = None
        self._is_kept = False
        self.size_bytes = 0

    def write(self, data: bytes) -> None:
        if self._file is None:
            self._file = os.fdopen(os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
        self._file.write(data)
        self.size_bytes += len(data)

    def complete(self) -> None:
        """Wait for the disk, and put it in its place."""
        self.write(b"")
        assert self._file
        self._file.flush()
        os.fsync(self._file.fileno())
        os.rename(self._part, self._path)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def keep(self) -> None:
        """It is in the database now."""
        self._is_kept = True

    def close(self) -> None:
        """Remove it, unless it is kept."""
        if self._file:
            # It writes what is left, for which the disk may be too full; of what is kept nothing is left.
            with suppress(OSError):
                self._file.close()
        if not self._is_kept:
            self._part.unlink(missing_ok=True)
            self._path.unlink(missing_ok=True)
