"""Searches an index by words and, where the config has an embedder, by meaning; a reranker puts the best in order."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cappella.engines.base import Engine
from cappella.errors import EngineError
from cappella.tools.documents.index import Index
from cappella.tools.documents.index_rows import StoredPassage
from cappella.tools.documents.ranking import fused
from cappella.tools.documents.related import Related, related
from cappella.tools.documents.vectors import MAX_VECTORS, Vectors, vectors_of
from cappella.types import Prompt

RANKED = 50
"""How many passages each ranking gives."""
RERANKED = 20
"""How many of the best a reranker reads."""
ENGINE_TIMEOUT_S = 10.0

T = TypeVar("T")


@dataclass(slots=True)
class Hits:
    """The passages found, the best first, and others that are related to them; `notes` say what was left out, and why."""

    passages: Sequence[StoredPassage]
    related: Sequence[Related] = ()
    notes: list[str] = field(default_factory=list)


class Searcher:
    """Searches the index at `path`, which another connection may write. `close` it."""

    def __init__(
        self, path: Path, languages: Sequence[str], embedder: Engine | None = None, reranker: Engine | None = None
    ) -> None:
        self._path, self._languages = path, languages
        self._embedder, self._reranker = embedder, reranker
        # One thread of its own: an index is used by one, and a search takes as long as the event loop may not wait.
        self._thread = ThreadPoolExecutor(1, "documents")
        self._index: Index | None = None
        self._inode: int | None = None
        self._vectors: tuple[int, Vectors] | None = None

    async def close(self) -> None:
        """Wait for the searches that run, and close the index."""
        await self._on_thread(self._close)
        self._thread.shutdown()

    async def search(self, question: str, limit: int, most_related: int = 0) -> Hits:
        """The best passages, and besides so many at most that are related. Raises IndexUnusable and sqlite3.Error."""
        hits = Hits([])
        by_words, vector = await asyncio.gather(
            self._on_thread(lambda: self._opened.by_words(question, RANKED)), self._vector(question, hits.notes)
        )
        by_meaning = await self._nearest(vector, hits.notes) if vector else []
        ranked = fused(by_words, by_meaning)[: RERANKED if self._reranker else limit]
        found = await self._on_thread(lambda: self._opened.passages(ranked))
        hits.passages = (await self._reranked(question, found, hits.notes))[:limit]
        hits.related = await self._on_thread(
            lambda: related(self._opened, self._languages, question, hits.passages, most_related)
        )
        return hits

    async def passages_of(self, path: str) -> tuple[list[StoredPassage], str | None, bool]:
        """All passages of a file in order, why it has none, and whether it has more text. Raises what `search` raises."""
        return await self._on_thread(lambda: (self._opened.passages_of(path), *self._opened.state_of(path)))

    async def counts(self) -> tuple[int, int]:
        """The files and the passages. Raises what `search` raises."""
        return await self._on_thread(lambda: self._opened.counts())

    @property
    def _opened(self) -> Index:
        # Another file by this name is one that was made anew.
        now = self._path.stat().st_ino if self._path.exists() else None
        if self._index is None or now != self._inode:
            self._close()
            self._vectors = None
            self._index, self._inode = Index(self._path, self._languages, is_reader=True), now
        return self._index

    def _close(self) -> None:
        if self._index:
            self._index.close()
            self._index = None

    async def _on_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def _vector(self, question: str, notes: list[str]) -> Sequence[float] | None:
        if not self._embedder or not await self._on_thread(self._has_vectors):
            return None
        embeddings = await _of_engine(
            self._embedder, lambda engine: engine.embed([question]), "searched by words alone", notes
        )
        return embeddings.vectors[0] if embeddings else None

    def _has_vectors(self) -> bool:
        return bool(self._embedder and self._opened.vectors(self._embedder.status.model, 1))

    async def _nearest(self, vector: Sequence[float], notes: list[str]) -> list[int]:
        def nearest() -> list[int]:
            return self._current_vectors().nearest(vector, RANKED)

        try:
            return await self._on_thread(nearest)
        except ImportError:
            notes.append("searched by words alone: numpy is not installed")
            return []

    def _current_vectors(self) -> Vectors:
        """The vectors in memory, read again once the index has changed."""
        assert self._embedder
        version = self._opened.version
        if self._vectors is None or self._vectors[0] != version:
            self._vectors = version, vectors_of(self._opened.vectors(self._embedder.status.model, MAX_VECTORS))
        return self._vectors[1]

    async def _reranked(
        self, question: str, found: Sequence[StoredPassage], notes: list[str]
    ) -> Sequence[StoredPassage]:
        if not self._reranker or len(found) < 2:
            return found
        prompt = Prompt([{"role": "user", "content": question}])

        async def scores(engine: Engine) -> Sequence[float]:
            given = await asyncio.gather(*(engine.score(prompt, each.text) for each in found))
            return [score.value for score in given]

        worth = await _of_engine(self._reranker, scores, "not reranked", notes)
        if worth is None:
            return found
        return [found[at] for at in sorted(range(len(found)), key=lambda at: -worth[at])]


async def _of_engine(
    engine: Engine, call: Callable[[Engine], Awaitable[T]], without: str, notes: list[str]
) -> T | None:
    """What the engine says; None, with a note, if it sleeps, fails or takes too long. One that sleeps begins to wake."""
    name = engine.status.model
    if engine.status.state != "ready":
        with engine.keep_awake():
            notes.append(f"{without}: {name} is {engine.status.state}")
            return None
    try:
        async with asyncio.timeout(ENGINE_TIMEOUT_S):
            return await call(engine)
    except (EngineError, TimeoutError) as error:
        notes.append(f"{without}: {name} failed ({error or 'it took too long'})")
        return None
