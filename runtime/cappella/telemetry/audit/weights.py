"""Which weights answer: one SHA-256 for each folder, computed beside everything else and remembered.

It is that of the list `<SHA-256>  <name>` of the files that an engine reads, by name: what `sha256sum` prints of them.
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

Known = dict[str, tuple[int, int, str]]
"""By path: size, time of the last change in ns, SHA-256."""


class Weights:
    """The digests of one config's models and adapters, as far as they are known.

    Of the models that `added` does not name, those of the config `before` hold: their engines go on.
    """

    def __init__(self, config: Config, before: "Weights | None" = None, added: Collection[str] = ()) -> None:
        models = config.local.items()
        adapters = {name: path for _, model in models for name, path in model.adapters.items()}
        self.folders = {**{name: model.weights for name, model in models}, **adapters}
        self.found = dict.fromkeys(self.folders, PENDING)
        self._host_of = config.host_of
        for name, digest in before.found.items() if before else ():
            if name in self.found and self._host_of[name] not in added:
                self.found[name] = digest

    def of(self, names: Iterable[str]) -> dict[str, str]:
        """By what was called, an adapter's engine too; `pending` where it is not known yet. Remote models have none."""
        called = {each for name in names for each in (name, self._host_of[name])}
        return {name: self.found[name] for name in sorted(called & self.found.keys())}


class WeightDigests:
    """What finds them out. `cache` is a file; with the same size and time a file is not read again."""

    def __init__(self, cache: Path) -> None:
        self._cache = cache
        self._stop = threading.Event()
        self._thread = ThreadPoolExecutor(1, "digests")

    def find(self, weights: Weights, done: Callable[[Mapping[str, str]], None]) -> None:
        """Those that are pending, on a thread; `done` is told of all, once they are known."""
        self._thread.submit(self._find, weights, done)

    def close(self) -> None:
        """Leave off where it is; what is known of whole files is remembered."""
        self._stop.set()
        self._thread.shutdown()

    def _find(self, weights: Weights, done: Callable[[Mapping[str, str]], None]) -> None:
        known = _read(self._cache)
        for name, folder in weights.folders.items():
            if weights.found[name] != PENDING:
                continue
            try:
                listed = self._listed(folder, known)
            except OSError as error:
                weights.found[name] = UNREADABLE
                logger.warning("no digest of %s: %s", folder, error)
                continue
            if self._stop.is_set():
                return
            weights.found[name] = f"sha256:{sha256(listed.encode())}"
        done(dict(weights.found))

    def _listed(self, folder: Path, known: Known) -> str:
        """As `sha256sum` lists the files. Raises OSError."""
        promised = _manifest(folder)
        out = []
        for path in sorted(path for path in folder.iterdir() if contents.is_read(path.name) and path.is_file()):
            stat = path.stat()
            size, changed, digest = known.get(str(path), (0, 0, ""))
            if (size, changed) != (stat.st_size, stat.st_mtime_ns):
                digest = promised.get((path.name, stat.st_size)) or self._hashed(path)
                if self._stop.is_set():
                    break
                known[str(path)] = (stat.st_size, stat.st_mtime_ns, digest)
                self._remember(known)
            out.append(f"{digest}  {path.name}\n")
        return "".join(out)

    def _remember(self, known: Known) -> None:
        try:
            manifest.write_atomically(self._cache, orjson.dumps(known))
        except OSError as error:
            logger.warning("digests are not remembered: %s", error)

    def _hashed(self, path: Path) -> str:
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as file:
            while not self._stop.is_set() and (block := file.read(BLOCK_BYTES)):
                digest.update(block)
        return digest.hexdigest()


def _manifest(folder: Path) -> Mapping[tuple[str, int], str]:
    """By name and size, what the bundle that this folder came in says; its hashes were checked at the installation."""
    home = folder.resolve().parent.parent
    try:
        files = manifest.read(home)[0].of("weights")
    except ConfigError:
        return {}
    return {(Path(file.path).name, file.size_bytes): file.sha256 for file in _of(files, folder.resolve().name)}


def _of(files: Iterable[manifest.File], name: str) -> Iterator[manifest.File]:
    return (file for file in files if file.path.split("/")[1:-1] == [name])


def _read(cache: Path) -> Known:
    """What an earlier start found; nothing if that cannot be read."""
    try:
        return {
            path: (size, changed, digest) for path, (size, changed, digest) in orjson.loads(cache.read_bytes()).items()
        }
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
