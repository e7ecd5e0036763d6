"""Why an index of documents cannot be opened or written, and what to do about it."""

import sqlite3
from pathlib import Path

from cappella.config.documents import INDEX_APPLICATION_ID
from cappella.database import has_application_id
from cappella.errors import CappellaError


class IndexUnusable(CappellaError):
    """The index cannot be opened; `str(error)` says what to do."""


class IndexBusy(IndexUnusable):
    """Another process writes the index."""


def unusable(path: Path, error: sqlite3.Error) -> IndexUnusable:
    """What to do about an index that cannot be opened: only of what is ours, to delete it."""
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        return IndexBusy(f"{path}: another process writes the index now.")
    if not path.exists():
        return IndexUnusable(f"{path}: there is no index yet.")
    if has_application_id(path, INDEX_APPLICATION_ID):
        return IndexUnusable(f"{path}: the index cannot be opened ({error}). Delete it: it is made again.")
    return IndexUnusable(f"{path} is no index of documents ({error}). Name a file of its own at documents.NAME.index.")
