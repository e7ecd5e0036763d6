"""SHA-256 digests of weight folders, computed on a thread and cached in a file.

The digest of a folder is the SHA-256 of what `sha256sum` prints for the files that an engine reads, sorted by name.
"""

import hashlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import orjson

from cappella.bundle import contents, manifest
from cappella.config import Config
from cappella.errors import ConfigError
from cappella.telemetry.audit.chain import sha256

PENDING = "pending"
UNREADABLE = "unreadable"
BLOCK_BYTES = 1 << 20

logger = logging.getLogger("cappella")

Cache = dict[str, tuple[int, int, str]]
"""Maps a path to its size in bytes, mtime in ns and SHA-256."""


class Weights:
    """Digests of the models and adapters of one config; `pending` until they are computed.

    After a reload, models not in `added` take their digests from `previous`, since their engines were kept.
    """

    def __init__(self, config: Config, previous: "Weights | None" = None, added: Collection[str] = ()) -> None:
        models = config.local.items()
        adapters = {name: path for _, model in models for name, path in model.adapters.items()}
        self.folders = {**{name: model.weights for name, model in models}, **adapters}
        self.digests = dict.fromkeys(self.folders, PENDING)
        self._host_of = config.host_of
        for name, digest in previous.digests.items() if previous else ():
            if name in self.digests and self._host_of[name] not in added:
                self.digests[name] = digest

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """Digests of the named models, with the base model of each adapter. Remote models have none."""
        read = {each for name in names for each in (name, self._host_of[name])}
        return {name: self.digests[name] for name in sorted(read & self.digests.keys())}


class WeightDigests:
    """Computes digests. `cache` is a file of file hashes: a file with the same size and mtime is not read again."""

    def __init__(self, cache: Path) -> None:
        self.latest: Mapping[str, str] = {}
        self._cache = cache
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "digests")

    def compute(self, weights: Weights, done: Callable[[Mapping[str, str]], None]) -> None:
        """Compute the pending digests on a thread, then call `done` there with all digests. `latest` has them as they come."""
        self.latest = weights.digests
        self._thread.submit(self._compute, weights, done)

    def close(self) -> None:
        """Stop at once; hashes of files already read stay in the cache."""
        self._stop.set()
        self._thread.shutdown()

    def _compute(self, weights: Weights, done: Callable[[Mapping[str, str]], None]) -> None:
        cache = _read(self._cache)
        for name, folder in weights.folders.items():
            if weights.digests[name] != PENDING:
                continue
            try:
                checksums = self._checksums(folder, cache)
            except OSError as error:
                weights.digests[name] = UNREADABLE
                logger.warning("cannot compute the digest of %s: %s", folder, error)
                continue
            if self._stop.is_set():
                return
            weights.digests[name] = f"sha256:{sha256(checksums.encode())}"
        done(dict(weights.digests))

    def _checksums(self, folder: Path, cache: Cache) -> str:
        """The output of `sha256sum` for the files. Raises OSError."""
        bundled = _manifest(folder)
        out = []
        for path in sorted(path for path in folder.iterdir() if contents.is_read(path.name) and path.is_file()):
            stat = path.stat()
            size, changed, digest = cache.get(str(path), (0, 0, ""))
            if (size, changed) != (stat.st_size, stat.st_mtime_ns):
                digest = bundled.get((path.name, stat.st_size)) or self._hash(path)
                if self._stop.is_set():
                    break
                cache[str(path)] = (stat.st_size, stat.st_mtime_ns, digest)
                self._write_cache(cache)
            out.append(f"{digest}  {path.name}\n")
        return "".join(out)

    def _write_cache(self, cache: Cache) -> None:
        try:
            manifest.write_atomically(self._cache, orjson.dumps(cache))
        except OSError as error:
            logger.warning("cannot write the cache of weight digests: %s", error)

    def _hash(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while not self._stop.is_set() and (block := file.read(BLOCK_BYTES)):
                digest.update(block)
        return digest.hexdigest()


def _manifest(folder: Path) -> Mapping[tuple[str, int], str]:
    """SHA-256 by file name and size, from the bundle that holds this folder; `bundle install` verified the hashes."""
    home = folder.resolve().parent.parent
    try:
        files = manifest.read(home)[0].of("weights")
    except ConfigError:
        return {}
    return {(Path(file.path).name, file.size_bytes): file.sha256 for file in _of(files, folder.resolve().name)}


def _of(files: Iterable[manifest.File], name: str) -> Iterator[manifest.File]:
    return (file for file in files if file.path.split("/")[1:-1] == [name])


def _read(cache: Path) -> Cache:
    """The cache of an earlier start; empty if it cannot be read."""
    try:
        return {
            path: (size, changed, digest) for path, (size, changed, digest) in orjson.loads(cache.read_bytes()).items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
