"""Brings an index up to date with its folder: reads what is new or changed, forgets what is gone."""

import hashlib
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from cappella.tools.documents.cutting import Cut, cut
from cappella.tools.documents.damage import is_damage, set_aside
from cappella.tools.documents.folder import (
    FoundFile,
    Skipped,
    UnfinishedFile,
    UnopenedFile,
    UnreadableFile,
    content_of,
    files_in,
    is_on_another_device,
)
from cappella.tools.documents.index import Index
from cappella.tools.documents.index_errors import IndexUnusable
from cappella.tools.documents.index_lock import write_lock
from cappella.tools.documents.index_rows import StoredFile
from cappella.tools.documents.parsing import Parser
from cappella.tools.documents.reading import ReadingLimits

MAX_TRIES = 5
"""Of a file whose reading took too long or failed: the next scans try it again."""


@dataclass(slots=True)
class Scan:
    """What a scan did so far: `read` files are new or changed, `problems` has those that cannot be read.

    Of those in `cut`, only a part is in the index: they have more text than is read of a file.
    """

    files: int = 0
    passages: int = 0
    read: int = 0
    removed: int = 0
    damaged: Path | None = None
    """Where the index is that was found damaged, and was made anew."""
    kept: int = 0
    """Files that were read earlier and cannot be reached now."""
    problems: dict[str, str] = field(default_factory=dict)
    cut: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0


class Scanner:
    """Scans a folder into its index, on the thread that calls it; one that is damaged is made anew. `stop` ends a scan after the file that is read now."""

    def __init__(
        self, folder: Path, path: Path, languages: tuple[str, ...], limits: ReadingLimits = ReadingLimits(),
        is_verified: bool = False,
    ) -> None:  # fmt: skip
        self._folder, self._path, self._languages, self._limits = folder, path, languages, limits
        self._is_verified = is_verified
        self._parser = Parser(limits)
        self._is_stopped = False

    def stop(self) -> None:
        """May be called from any thread."""
        self._is_stopped = True
        self._parser.stop()

    def scan(self, tell: Callable[[Scan], None] = lambda _: None) -> Scan:
        """Bring the index up to date; `tell` is called after each file. Raises IndexUnusable, and OSError for the folder."""
        with write_lock(self._path):
            try:
                return self._scan(tell, None)
            except (IndexUnusable, sqlite3.DatabaseError) as error:
                aside = set_aside(self._path) if is_damage(error) else None
                if aside is None:
                    raise
                return self._scan(tell, aside)

    def _scan(self, tell: Callable[[Scan], None], aside: Path | None) -> Scan:
        began, done, skipped = time.monotonic(), Scan(damaged=aside), Skipped()
        with closing(Index(self._path, self._languages)) as index:
            index.make_for(self._folder)
            if self._is_verified:
                index.verify()
            known = index.files()
            missing = set(known)
            for file in files_in(self._folder, skipped):
                if self._is_stopped:
                    return done
                missing.discard(file.path)
                self._update(index, file, known.get(file.path), done)
                tell(done)
            gone = [path for path in sorted(missing) if not _may_come_back(self._folder, path, known[path], skipped)]
            for path in gone:
                index.remove(path)
            done.removed, done.kept = len(gone), len(missing) - len(gone)
            index.erase_removed()
            done.files, done.passages = index.counts()
        done.skipped, done.seconds = skipped.counts, time.monotonic() - began
        return done

    def _update(self, index: Index, file: FoundFile, known: StoredFile | None, done: Scan) -> None:
        done.files += 1
        is_known = known is not None and known.is_of(file)
        tries = known.tries if known and is_known else 0
        if known and is_known and not 0 < tries < MAX_TRIES:
            if known.device != str(file.device):
                index.touch(file)
            if known.problem:
                done.problems[file.path] = known.problem
            if known.is_cut:
                done.cut.append(file.path)
            return
        try:
            content = content_of(self._folder, file.path, self._limits.size_bytes)
            digest = hashlib.sha256(content).digest()
            if known and known.digest == digest and known.problem is None:
                index.touch(file)
                if known.is_cut:
                    done.cut.append(file.path)
                return
            self._put(index, file, content, digest, done)
        except UnreadableFile as error:
            if self._is_stopped:
                return
            tries = tries + 1 if isinstance(error, UnfinishedFile) else 0
            done.problems[file.path] = f"{error} (try {tries} of {MAX_TRIES})" if tries else str(error)
            # Of another time than any file has, it is tried again by the next scan.
            stored = replace(file, mtime_ns=-1) if isinstance(error, UnopenedFile) else file
            index.put(stored, b"", [], problem=done.problems[file.path], tries=tries)
        done.read += 1

    def _put(self, index: Index, file: FoundFile, content: bytes, digest: bytes, done: Scan) -> None:
        """Raises UnreadableFile."""
        try:
            parsed = self._parser.parse(content, file.kind)
            cuts, is_cut = _first(cut(parsed), self._limits.chars)
        except (ValueError, LookupError) as error:
            raise UnreadableFile(f"it cannot be read ({type(error).__name__})") from error
        if not cuts:
            raise UnreadableFile("it has no text; a PDF may be a scan, that is, pictures of pages")
        index.put(file, digest, cuts, parsed.title, is_cut=is_cut or parsed.is_cut)
        if is_cut or parsed.is_cut:
            done.cut.append(file.path)


def _first(cuts: Iterable[Cut], chars: int) -> tuple[list[Cut], bool]:
    """The passages up to so many characters, and whether there are more: a table's text is longer than its file."""
    kept: list[Cut] = []
    for each in cuts:
        if chars <= 0:
            return kept, True
        chars -= len(each.text) - each.repeated
        kept.append(each)
    return kept, False


def _may_come_back(folder: Path, path: str, known: StoredFile, skipped: Skipped) -> bool:
    """Whether a file that was not seen is out of reach rather than deleted."""
    if any(path == each or path.startswith(f"{each}/") for each in skipped.unopened):
        return True
    return is_on_another_device(folder, path, int(known.device))
