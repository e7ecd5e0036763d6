"""SHA-256 of the files of weights, kept beside their size and times, so that each is read once."""

import asyncio
import fcntl
import hashlib
import json
import tempfile
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from cappella.config import paths

Digests = Mapping[str, str]
"""By path."""
CHUNK_BYTES = 4 << 20
POLL_S = 0.1
READ_BY_ENGINES = frozenset(".json .jinja .safetensors .model .bin .pt .gguf .py".split())
"""Endings of files that an engine reads wherever it finds them: one too many is another model."""

_folder_locks: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


class ReadingStopped(Exception):
    """Nobody waits for the digests any more."""


async def read(folders: Iterable[Path]) -> Digests:
    """What `of` returns, from a thread that ends soon after its caller was cancelled. Raises OSError."""
    stopped = threading.Event()
    try:
        return await asyncio.to_thread(of, folders, stopped)
    finally:
        stopped.set()


def of(folders: Iterable[Path], stopped: threading.Event | None = None) -> Digests:
    """The digests of all files in these folders and below, but hidden ones. Raises OSError, and ReadingStopped once it is `stopped`."""
    stopped = stopped or threading.Event()
    found: dict[str, str] = {}
    for folder in folders:
        # Engines that share their weights start together: one of them reads, and the others find what it kept.
        with _held(_folder_locks[folder], stopped):
            found |= _of_folder(folder, stopped)
    return found


def differences(wanted: Digests, found: Digests) -> list[str]:
    """In words, what of the wanted files is missing, what is not the same, and what an engine would read besides."""
    missing = [f"{path} is missing" for path in wanted if path not in found]
    other = [f"{path} has other content" for path in wanted if path in found and found[path] != wanted[path]]
    extra = [path for path in found if path not in wanted and Path(path).suffix in READ_BY_ENGINES]
    return [*missing, *other, *(f"{path} is not at the gateway" for path in extra)]


def _of_folder(folder: Path, stopped: threading.Event) -> dict[str, str]:
    kept_in = paths.state_dir() / "digests.json"
    kept, found = _kept(kept_in), {}
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if hidden or not path.is_file():
            continue
        stat = path.stat()
        # A file that was written to has another time of change, which nobody can set.
        version = f"{stat.st_dev}.{stat.st_ino}.{stat.st_size}.{stat.st_mtime_ns}.{stat.st_ctime_ns}"
        known = kept.get(str(path), {})
        if known.get("version") != version:
            known = {"version": version, "sha256": _sha256(path, stopped)}
            # At once: a start that is given up goes on from here the next time.
            _keep(kept_in, str(path), known)
        found[str(path)] = known["sha256"]
    return found


def _sha256(path: Path, stopped: threading.Event) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            if stopped.is_set():
                raise ReadingStopped
            digest.update(chunk)
    return digest.hexdigest()


@contextmanager
def _held(lock: threading.Lock, stopped: threading.Event) -> Iterator[None]:
    while not lock.acquire(timeout=POLL_S):
        if stopped.is_set():
            raise ReadingStopped
    try:
        yield
    finally:
        lock.release()


def _kept(path: Path) -> dict[str, dict[str, str]]:
    try:
        kept = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def _keep(kept_in: Path, path: str, known: Mapping[str, str]) -> None:
    # What is not kept is computed again.
    with suppress(OSError):
        kept_in.parent.mkdir(parents=True, exist_ok=True)
        # Threads and other processes of this user write, too: each has opened the lock for itself.
        with kept_in.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            with tempfile.NamedTemporaryFile("w", dir=kept_in.parent, prefix=kept_in.name, delete=False) as new:
                new.write(json.dumps({**_kept(kept_in), path: known}))
            Path(new.name).replace(kept_in)
