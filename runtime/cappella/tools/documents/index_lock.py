"""The lock of an index: one process writes it."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cappella.tools.documents.index_errors import IndexBusy


@contextmanager
def write_lock(path: Path) -> Iterator[None]:
    """In this context this process alone writes the index at `path`. Raises IndexBusy if another one does, and OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise IndexBusy(f"{path}: another process indexes these documents now.") from None
        yield
    finally:
        os.close(descriptor)
