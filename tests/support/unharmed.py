"""That what a hostile tool did left nothing: no process, no file, no change of a file, no descriptor."""

import ctypes
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from support.real_deployment import wait_for

PR_SET_CHILD_SUBREAPER = 36
MARK = "nobody changes this"


@contextmanager
def unharmed(folder: Path) -> Iterator[Path]:
    """A file that must stay as it is. Afterwards this process has no more children, files and descriptors than before."""
    precious = folder / "precious"
    precious.write_text(MARK)
    # Tests beside this one have temporary files, too.
    own, tempfile.tempdir = tempfile.tempdir, str(folder)
    before = _children(), _files(folder), len(os.listdir("/proc/self/fd"))
    # Orphans become children of this process, and are seen.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    try:
        yield precious
        assert wait_for(lambda: _left(before[0]) == set(), 30), _left(before[0])
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)
        tempfile.tempdir = own
    assert precious.read_text() == MARK
    assert _files(folder) == before[1]
    assert len(os.listdir("/proc/self/fd")) <= before[2] + 1  # The event loop's own.


def _left(before: set[int]) -> set[int]:
    """New children that live; those that have ended are buried."""
    for pid in _children() - before:
        with suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    return _children() - before


def _children() -> set[int]:
    tasks = Path("/proc/self/task").glob("*/children")
    return {int(pid) for task in tasks for pid in task.read_text().split()}


def _files(folder: Path) -> set[str]:
    escaped = {name for name in os.listdir(tempfile.gettempdir()) if name.startswith("escaped")}
    return escaped | set(map(str, folder.rglob("*")))
