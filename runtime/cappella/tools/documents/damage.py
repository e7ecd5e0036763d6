"""A damaged index is set aside and made again: all that it has comes from the documents."""

import sqlite3
from contextlib import suppress
from pathlib import Path

from cappella.config.documents import INDEX_APPLICATION_ID
from cappella.database import has_application_id

_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}


def is_damage(error: BaseException | None) -> bool:
    """Whether SQLite, below this error, found the file damaged, rather than locked or the disk full."""
    while error is not None:
        # The low byte is the kind, the others say more of it.
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) & 0xFF in _DAMAGED:
            return True
        error = error.__cause__
    return False


def set_aside(path: Path) -> Path | None:
    """Rename a damaged index; its new name, or None where the file does not say that it is one."""
    if not has_application_id(path, INDEX_APPLICATION_ID):
        return None
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    for end in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            path.with_name(path.name + end).unlink()
    return aside
